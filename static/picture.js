// A picture that can be zoomed with wheel, pinch, double tap and keys, and moved when it is.

import { DOUBLE_TAP_ZOOM, fittedSize, keepInSight, WHOLE, zoomAt } from "./zoom.js";

const WHEEL_STEP = 0.0022; // zoom per pixel of wheel, as the exponent of e
const DOUBLE_TAP_MS = 300;
const DOUBLE_TAP_PX = 30;

/** @typedef {import("./zoom.js").View} View */

export class Picture {
  #stage;
  #image;
  /** @type {View} */
  #view = WHOLE;
  /** Fingers on the picture, and where. @type {Map<number, {x: number, y: number}>} */
  #fingers = new Map();
  #lastTap = { at: 0, x: 0, y: 0 };
  #downX = 0;

  /**
   * @param {HTMLElement} stage
   * @param {HTMLImageElement} image
   * @param {AbortSignal} signal
   */
  constructor(stage, image, signal) {
    this.#stage = stage;
    this.#image = image;
    image.classList.add("picture");
    image.draggable = false;
    stage.addEventListener("wheel", (event) => this.#onWheel(event), { passive: false, signal });
    stage.addEventListener("pointerdown", (event) => this.#onDown(event), { signal });
    stage.addEventListener("pointermove", (event) => this.#onMove(event), { signal });
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => this.#onUp(/** @type {PointerEvent} */ (event)), {
        signal,
      });
    }
    new ResizeObserver(() => this.#show(this.#view)).observe(stage);
  }

  /** Whether a swipe moves the picture rather than to the next one. */
  get isZoomed() {
    return this.#view.scale > 1.01;
  }

  /**
   * Zoom around the middle; 0 shows it whole.
   * @param {number} factor
   */
  zoom(factor) {
    this.#show(factor === 0 ? WHOLE : zoomAt(this.#view, factor, { x: 0, y: 0 }));
  }

  /** @param {{clientX: number, clientY: number}} event */
  #fromCentre({ clientX, clientY }) {
    const { left, top, width, height } = this.#stage.getBoundingClientRect();
    return { x: clientX - left - width / 2, y: clientY - top - height / 2 };
  }

  /** @param {WheelEvent} event */
  #onWheel(event) {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 18 : 1);
    // A pinch on a touchpad comes as a wheel with Ctrl, in small steps.
    const step = WHEEL_STEP * (event.ctrlKey ? 5 : 1);
    this.#show(zoomAt(this.#view, Math.exp(-pixels * step), this.#fromCentre(event)));
  }

  /** @param {PointerEvent} event */
  #onDown(event) {
    if (event.button !== 0) {
      return;
    }
    const point = this.#fromCentre(event);
    this.#fingers.set(event.pointerId, point);
    this.#downX = point.x;
    this.#stage.setPointerCapture(event.pointerId);
    if (this.#fingers.size > 1) {
      this.#lastTap.at = 0; // it was no tap
      return;
    }
    const last = this.#lastTap;
    const isNear = Math.hypot(point.x - last.x, point.y - last.y) < DOUBLE_TAP_PX;
    const isDouble = isNear && event.timeStamp - last.at < DOUBLE_TAP_MS;
    this.#lastTap = { at: isDouble ? 0 : event.timeStamp, ...point };
    if (isDouble) {
      this.#show(this.isZoomed ? WHOLE : zoomAt(this.#view, DOUBLE_TAP_ZOOM, point), true);
    }
  }

  /** @param {PointerEvent} event */
  #onMove(event) {
    const before = this.#fingers.get(event.pointerId);
    if (!before) {
      return;
    }
    const now = this.#fromCentre(event);
    const other = [...this.#fingers].find(([id]) => id !== event.pointerId)?.[1];
    this.#fingers.set(event.pointerId, now);
    if (other) {
      this.#follow(0);
      const distance = Math.hypot(before.x - other.x, before.y - other.y) || 1;
      const factor = Math.hypot(now.x - other.x, now.y - other.y) / distance;
      const middle = { x: (now.x + other.x) / 2, y: (now.y + other.y) / 2 };
      this.#show(zoomAt(this.#view, factor, middle));
    } else if (this.isZoomed) {
      const { scale, x, y } = this.#view;
      this.#show({ scale, x: x + now.x - before.x, y: y + now.y - before.y });
    } else if (event.pointerType === "touch") {
      this.#follow(now.x - this.#downX); // on the way to the next one
    }
  }

  /** @param {PointerEvent} event */
  #onUp(event) {
    this.#fingers.delete(event.pointerId);
    this.#follow(0);
  }

  /** @param {number} pixels how far a finger has taken the whole picture aside; 0: it lets go */
  #follow(pixels) {
    this.#image.classList.toggle("is-let-go", pixels === 0);
    this.#image.style.translate = pixels === 0 ? "" : `${pixels}px`;
  }

  /**
   * @param {View} view
   * @param {boolean} [isSmooth] for a jump; a gesture is followed at once
   */
  #show(view, isSmooth = false) {
    const { clientWidth: width, clientHeight: height } = this.#stage;
    const picture = { width: this.#image.naturalWidth, height: this.#image.naturalHeight };
    const stage = { width, height };
    const fitted = fittedSize(picture, stage);
    this.#view = keepInSight(view, fitted, stage);
    const { scale, x, y } = this.#view;
    this.#image.classList.toggle("is-smooth", isSmooth);
    this.#image.classList.toggle("is-zoomed", this.isZoomed);
    this.#image.style.transform = `translate(${x}px, ${y}px) scale(${scale})`;
  }
}
