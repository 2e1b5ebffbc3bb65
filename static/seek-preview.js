// A line above the browser's own controls, for films with seek pictures: point at it, drag along it,
// and the frame of that moment is shown before anything of the film is fetched. The browser's own
// seek bar stays as it is; whoever drags that one sees the frames too.

import { formatDuration } from "./format.js";
import { SeekPictures } from "./storyboard.js";

const REST_AFTER_MS = 2_500; // as browsers do with their own controls
const SLOW_SEEK_MS = 100; // a seek that is over sooner needs no picture
const SHOWN_AFTER_SEEK_MS = 250;
const PAGE_SHARE = 0.1; // of the film, for Page Up and Page Down
const PREVIEW_BOX = { width: 216, height: 160 };
const PREVIEW_MIN = 40; // lower than that there is nothing to be seen on it
const TIME_HEIGHT = 36; // below a frame
const PREVIEW_SHARE = 0.45; // of the width of a narrow player
const RANGES_MAX = 40; // of what is buffered, drawn

/**
 * @typedef {object} Surroundings
 * @property {HTMLElement} stage holds the film; another element may take the film's place in it
 * @property {() => HTMLMediaElement | null} media the one that plays now
 * @property {(failed: string) => Promise<string | null>} sign gives a fresh URL of the storyboard
 * @property {AbortSignal} signal the end of it
 */

/** `0:07`, also for the first second. @param {number} seconds */
function clock(seconds) {
  return formatDuration(Math.floor(seconds)) || "0:00";
}

/**
 * @template {keyof HTMLElementTagNameMap} T
 * @param {T} tag
 * @param {string} className
 */
function make(tag, className) {
  const made = document.createElement(tag);
  made.className = className;
  return made;
}

export class SeekPreview {
  #stage;
  #media;
  #pictures;
  #signal;
  #line = make("div", "seek");
  #bar = make("div", "seek-bar");
  #buffered = make("div", "seek-buffered");
  #played = make("div", "seek-played");
  #goal = make("div", "seek-goal");
  #preview = make("div", "seek-preview");
  #canvas = make("canvas", "seek-frame");
  #time = make("span", "seek-time");
  /** The moment that is pointed at, in seconds. @type {number | null} */
  #pointed = null;
  #isDragged = false;
  #restTimer = 0;
  #seekTimer = 0;

  /** @param {Surroundings} around */
  constructor({ stage, media, sign, signal }) {
    this.#stage = stage;
    this.#media = media;
    this.#signal = signal;
    this.#pictures = new SeekPictures(sign, signal);
    this.#build();
    this.#listenToBar();
    this.#listenToStage();
    signal.addEventListener("abort", () => this.#close(), { once: true });
  }

  #close() {
    clearTimeout(this.#restTimer);
    clearTimeout(this.#seekTimer);
    this.#line.remove();
    this.#stage.classList.remove("has-seek", "is-seek-shown");
  }

  #build() {
    this.#bar.tabIndex = 0;
    for (const [name, value] of [
      ["role", "slider"],
      ["aria-label", "Position in the film"],
      ["aria-keyshortcuts", "ArrowLeft ArrowRight Home End PageUp PageDown"],
      ["aria-valuemin", "0"],
    ]) {
      this.#bar.setAttribute(name, value);
    }
    this.#preview.hidden = true;
    this.#preview.setAttribute("aria-hidden", "true");
    this.#canvas.hidden = true;
    this.#goal.hidden = true;
    this.#preview.append(this.#canvas, this.#time);
    const track = make("div", "seek-track");
    track.append(this.#buffered, this.#goal, this.#played);
    this.#bar.append(track);
    this.#line.append(this.#preview, this.#bar);
    this.#line.hidden = true; // until it is known how long the film is
    this.#stage.append(this.#line);
    this.#stage.classList.add("has-seek");
  }

  get #duration() {
    const duration = this.#media()?.duration ?? 0;
    return Number.isFinite(duration) ? duration : 0;
  }

  // What happens -------------------------------------------------------------------------------

  #listenToBar() {
    const bar = this.#bar;
    const point = (/** @type {PointerEvent} */ event) => {
      this.#point(this.#momentAt(event.clientX));
      this.#keepControls(event);
    };
    bar.addEventListener("pointerenter", point);
    bar.addEventListener("pointermove", point);
    bar.addEventListener("pointerdown", (event) => {
      event.stopPropagation(); // no swipe to the next film begins here
      if (event.button === 0) {
        bar.setPointerCapture(event.pointerId);
        this.#isDragged = true;
        point(event);
      }
    });
    bar.addEventListener("pointerup", (event) => {
      if (this.#isDragged) {
        this.#seek(this.#momentAt(event.clientX));
        this.#endDrag(event.pointerType === "mouse");
      }
    });
    bar.addEventListener("pointercancel", () => this.#endDrag(false));
    bar.addEventListener("pointerleave", () => !this.#isDragged && this.#point(null));
    bar.addEventListener("focus", () => void this.#pictures.load());
    bar.addEventListener("keydown", (event) => this.#onKey(event));
  }

  #listenToStage() {
    const options = { capture: true, signal: this.#signal };
    /** @type {(names: string[], action: () => void) => void} */
    const on = (names, action) => {
      for (const name of names) {
        // Events of a film do not bubble, but they are seen on their way down to it.
        const listener = (/** @type {Event} */ event) => event.target === this.#media() && action();
        this.#stage.addEventListener(name, listener, options);
      }
    };
    on(["loadedmetadata", "durationchange", "progress", "timeupdate", "seeked"], () =>
      this.#draw(),
    );
    on(["play", "pause"], () => this.#wake());
    on(["seeking"], () => this.#onSeeking());
    on(["seeked"], () => this.#onSeeked());
    for (const name of ["pointermove", "pointerdown", "focusin"]) {
      this.#stage.addEventListener(name, () => this.#wake(), { signal: this.#signal });
    }
  }

  /** Somebody is there: the line is shown, and leaves again while the film plays. */
  #wake() {
    clearTimeout(this.#restTimer);
    this.#show(true);
    this.#restTimer = window.setTimeout(() => {
      const isWanted = this.#pointed !== null || this.#bar.matches(":focus-visible");
      if (!this.#media()?.paused && !isWanted) {
        this.#show(false);
      }
    }, REST_AFTER_MS);
  }

  /** @param {boolean} isShown */
  #show(isShown) {
    this.#stage.classList.toggle("is-seek-shown", isShown);
    if (isShown) {
      this.#draw();
    }
  }

  /**
   * The browser hides its buttons when the pointer leaves the film, which it does for the bar.
   * @param {PointerEvent} event
   */
  #keepControls({ pointerType }) {
    for (const name of ["pointerover", "pointermove"]) {
      this.#media()?.dispatchEvent(new PointerEvent(name, { pointerType }));
    }
  }

  /** @param {number} x in the window */
  #momentAt(x) {
    const { left, width } = this.#bar.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (x - left) / Math.max(1, width)));
    return share * this.#duration;
  }

  /** @param {number | null} seconds */
  #point(seconds) {
    clearTimeout(this.#seekTimer);
    this.#pointed = seconds;
    this.#drawPreview();
    if (seconds !== null) {
      this.#wake();
      if (!this.#pictures.areThere) {
        void this.#pictures.load().then(() => this.#drawPreview());
      }
    }
  }

  /** @param {boolean} isStillPointed */
  #endDrag(isStillPointed) {
    this.#isDragged = false;
    if (!isStillPointed) {
      this.#point(null);
    }
  }

  /** @param {number} seconds */
  #seek(seconds) {
    const media = this.#media();
    if (media) {
      media.currentTime = Math.min(Math.max(0, seconds), this.#duration);
    }
  }

  /** @param {KeyboardEvent} event the arrows are the page's, as everywhere */
  #onKey(event) {
    const at = this.#media()?.currentTime ?? 0;
    /** @type {Record<string, number>} */
    const goals = {
      Home: 0,
      End: this.#duration,
      PageUp: at + this.#duration * PAGE_SHARE,
      PageDown: at - this.#duration * PAGE_SHARE,
    };
    if (event.key in goals) {
      event.preventDefault();
      event.stopPropagation();
      this.#seek(goals[event.key]);
    }
  }

  /** By whatever: keys, the browser's own bar, a finger on it. */
  #onSeeking() {
    this.#draw();
    if (this.#pointed !== null) {
      return;
    }
    clearTimeout(this.#seekTimer);
    const isShown = !this.#preview.hidden;
    this.#seekTimer = window.setTimeout(
      () => {
        void this.#pictures.load().then(() => this.#drawSought());
      },
      isShown ? 0 : SLOW_SEEK_MS,
    );
  }

  #drawSought() {
    const media = this.#media();
    if (media?.seeking && this.#pointed === null && !this.#signal.aborted) {
      this.#show(true);
      this.#drawPreview(media.currentTime);
    }
  }

  #onSeeked() {
    if (this.#pointed === null) {
      clearTimeout(this.#seekTimer);
      this.#seekTimer = window.setTimeout(() => {
        this.#drawPreview();
        this.#wake();
      }, SHOWN_AFTER_SEEK_MS);
    }
  }

  // What is seen -------------------------------------------------------------------------------

  #draw() {
    const media = this.#media();
    const duration = this.#duration;
    this.#line.hidden = !media || duration === 0;
    if (!media || this.#line.hidden) {
      return;
    }
    const share = media.currentTime / duration;
    this.#played.style.width = `${share * 100}%`;
    this.#bar.setAttribute("aria-valuemax", String(Math.floor(duration)));
    this.#bar.setAttribute("aria-valuenow", String(Math.floor(media.currentTime)));
    const told = `${clock(media.currentTime)} of ${clock(duration)}`;
    this.#bar.setAttribute("aria-valuetext", told);
    if (this.#stage.classList.contains("is-seek-shown")) {
      this.#place(media);
      this.#drawBuffered(media.buffered, duration);
    }
  }

  /**
   * Above the film's own controls, which are at the film's lower edge and not always the stage's.
   * @param {HTMLMediaElement} media
   */
  #place(media) {
    const below = this.#stage.getBoundingClientRect().bottom - media.getBoundingClientRect().bottom;
    this.#line.style.setProperty("--seek-below", `${Math.max(0, below)}px`);
  }

  /**
   * @param {TimeRanges} buffered
   * @param {number} duration
   */
  #drawBuffered(buffered, duration) {
    const parts = Math.min(buffered.length, RANGES_MAX);
    while (this.#buffered.children.length > parts) {
      this.#buffered.lastChild?.remove();
    }
    for (let index = 0; index < parts; index += 1) {
      const part = this.#buffered.children[index] ?? this.#buffered.appendChild(make("i", ""));
      const [start, end] = [buffered.start(index) / duration, buffered.end(index) / duration];
      const { style } = /** @type {HTMLElement} */ (part);
      style.left = `${start * 100}%`;
      style.width = `${(end - start) * 100}%`;
    }
  }

  /** @param {number | null} seconds null for none */
  #drawPreview(seconds = this.#pointed) {
    const duration = this.#duration;
    const isShown = seconds !== null && duration > 0;
    this.#preview.hidden = !isShown;
    this.#goal.hidden = !isShown;
    if (!isShown) {
      return;
    }
    const room = this.#bar.clientWidth;
    const above = this.#bar.getBoundingClientRect().top - this.#stage.getBoundingClientRect().top;
    const box = {
      width: Math.min(PREVIEW_BOX.width, room * PREVIEW_SHARE),
      height: Math.min(PREVIEW_BOX.height, above - TIME_HEIGHT),
    };
    this.#canvas.hidden =
      box.height < PREVIEW_MIN || !this.#pictures.draw(this.#canvas, seconds, box);
    this.#time.textContent = clock(seconds);
    const at = (seconds / duration) * room;
    const half = this.#preview.offsetWidth / 2;
    this.#preview.style.left = `${Math.min(Math.max(at, half), Math.max(half, room - half))}px`;
    this.#goal.style.width = `${(seconds / duration) * 100}%`;
  }
}
