// The small panel of numbers about the film that plays.

import { bufferedAhead } from "./buffered.js";
import { formatDuration, formatSize } from "./format.js";

const EVERY_MS = 1000;
const VIA = { worker: "Worker (MTProto)", bot_api: "Bot API" };

/** @typedef {import("./api.js").MediaFile} MediaFile */
/** @typedef {import("./player.js").Player} Player */

/**
 * `5.2 Mbit/s`.
 * @param {number} bytes
 * @param {number} seconds
 */
export function formatRate(bytes, seconds) {
  const megabits = (bytes * 8) / 1e6 / seconds;
  return `${megabits.toFixed(megabits < 10 ? 1 : 0)} Mbit/s`;
}

export class Stats {
  #panel;
  #list;
  /** @type {(() => {player: Player, file: MediaFile} | null)} */
  #subject;
  #timer = 0;
  #bytes = 0;
  #bufferedBefore = 0;
  #isCounted = false;

  /**
   * @param {HTMLElement} panel
   * @param {HTMLElement} list
   * @param {() => {player: Player, file: MediaFile} | null} subject
   */
  constructor(panel, list, subject) {
    this.#panel = panel;
    this.#list = list;
    this.#subject = subject;
  }

  /** @param {boolean} [isShown] */
  toggle(isShown = Boolean(this.#panel.hidden)) {
    clearInterval(this.#timer);
    this.#panel.hidden = !isShown || this.#subject() === null;
    if (!this.#panel.hidden) {
      this.#bytes = 0;
      this.#timer = window.setInterval(() => this.#draw(), EVERY_MS);
      this.#draw();
    }
  }

  /** @param {number} bytes */
  count(bytes) {
    this.#bytes += bytes;
    this.#isCounted = true;
  }

  /** Something else plays from now on, whose bytes may be counted or not. */
  forgetCount() {
    this.#isCounted = false;
  }

  #draw() {
    const subject = this.#subject();
    if (!subject) {
      return;
    }
    const { player, file } = subject;
    const { media } = player;
    const duration = media.duration || file.duration || 0;
    const ahead = bufferedAhead(media.buffered, media.currentTime);
    const rows = [
      ["Duration", formatDuration(duration) || "unknown"],
      ["Size", formatSize(file.size)],
      ["Film", duration ? formatRate(file.size, duration) : "unknown"],
      ["Line", formatRate(this.#takeBytes(media, file, duration), EVERY_MS / 1000)],
      ["Buffered", `${ahead.toFixed(1)} s`],
      ...pictureRows(media),
      ["Via", VIA[/** @type {keyof typeof VIA} */ (player.via)] ?? player.via],
    ];
    this.#list.replaceChildren(
      ...rows.flatMap(([name, value]) => [cell("dt", name ?? ""), cell("dd", value ?? "")]),
    );
  }

  /**
   * Bytes since the last look. Where no service worker counts them, what the buffer grew by says it.
   * @param {HTMLMediaElement} media
   * @param {MediaFile} file
   * @param {number} duration
   */
  #takeBytes(media, file, duration) {
    const { buffered } = media;
    let seconds = 0;
    for (let index = 0; index < buffered.length; index += 1) {
      seconds += buffered.end(index) - buffered.start(index);
    }
    const grown = Math.max(0, seconds - this.#bufferedBefore);
    this.#bufferedBefore = seconds;
    const bytes = this.#isCounted ? this.#bytes : duration && (grown / duration) * file.size;
    this.#bytes = 0;
    return bytes;
  }
}

/**
 * @param {HTMLMediaElement} media
 * @returns {[string, string][]}
 */
function pictureRows(media) {
  if (!(media instanceof HTMLVideoElement)) {
    return [];
  }
  const { droppedVideoFrames, totalVideoFrames } = media.getVideoPlaybackQuality();
  return [
    ["Resolution", media.videoWidth ? `${media.videoWidth} × ${media.videoHeight}` : "unknown"],
    ["Dropped", `${droppedVideoFrames} of ${totalVideoFrames} frames`],
  ];
}

/**
 * @param {string} name
 * @param {string} text
 */
function cell(name, text) {
  const element = document.createElement(name);
  element.textContent = text;
  return element;
}
