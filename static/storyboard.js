// The seek pictures that Telegram made of a film: one picture of tiles, and which moment each shows.

import { Failures } from "./workers.js";

/**
 * As the worker's /storyboard tells it.
 * @typedef {object} Storyboard
 * @property {string} url of the picture, relative to the map
 * @property {number} frame_width
 * @property {number} frame_height
 * @property {[seconds: number, left: number, top: number][]} frames by rising seconds
 */

const AGAIN_AFTER_MS = 5_000;
const PATIENCE_MS = 20_000;

/**
 * The frame that stands for a moment: the last one before it.
 * @param {Storyboard["frames"]} frames
 * @param {number} seconds
 */
export function frameAt(frames, seconds) {
  let [low, high] = [0, frames.length];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (frames[middle][0] <= seconds) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return frames[low];
}

/**
 * A frame's size on the page: as large as the box allows, never larger than it is.
 * @param {{width: number, height: number}} frame
 * @param {{width: number, height: number}} box
 */
export function sizeIn(frame, box) {
  const scale = Math.min(1, box.width / frame.width, box.height / frame.height);
  return { width: Math.round(frame.width * scale), height: Math.round(frame.height * scale) };
}

/** One film's seek pictures. Nothing is fetched until somebody looks for them. */
export class SeekPictures {
  #sign;
  #signal;
  #failures = new Failures();
  /** @type {{board: Storyboard, picture: HTMLImageElement} | null} */
  #found = null;
  /** @type {Promise<void> | null} */
  #loading = null;

  /**
   * @param {(failed: string) => Promise<string | null>} sign gives a fresh URL of the map
   * @param {AbortSignal} signal
   */
  constructor(sign, signal) {
    this.#sign = sign;
    this.#signal = signal;
  }

  get areThere() {
    return this.#found !== null;
  }

  /** @returns {Promise<void>} when they are there, or cannot be had now */
  load() {
    this.#loading ??= this.#load().catch(() => {
      // They are an extra: a film whose pictures do not come is sought by time alone.
      setTimeout(() => {
        this.#loading = null;
      }, AGAIN_AFTER_MS);
    });
    return this.#loading;
  }

  async #load() {
    const url = await this.#sign(this.#failures.query(0));
    if (!url) {
      return;
    }
    try {
      const signal = AbortSignal.any([this.#signal, AbortSignal.timeout(PATIENCE_MS)]);
      const answer = await fetch(url, { signal });
      if (!answer.ok) {
        throw new TypeError(`The worker answered ${answer.status}.`);
      }
      /** @type {Storyboard} */
      const board = await answer.json();
      const picture = new Image();
      picture.crossOrigin = "anonymous";
      picture.src = new URL(board.url, answer.url).href;
      await picture.decode();
      this.#found = { board, picture };
    } catch (error) {
      this.#failures.note(url);
      throw error;
    }
  }

  /**
   * Draw the frame of a moment.
   * @param {HTMLCanvasElement} canvas gets the frame's size
   * @param {number} seconds
   * @param {{width: number, height: number}} box what there is room for
   * @returns {boolean} whether there was one to draw
   */
  draw(canvas, seconds, box) {
    if (!this.#found) {
      return false;
    }
    const { board, picture } = this.#found;
    const frame = { width: board.frame_width, height: board.frame_height };
    const [, left, top] = frameAt(board.frames, seconds);
    const isWithin =
      left + frame.width <= picture.naturalWidth && top + frame.height <= picture.naturalHeight;
    const context = canvas.getContext("2d");
    if (!isWithin || !context) {
      return false;
    }
    const { width, height } = sizeIn(frame, box);
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
    canvas.width = frame.width;
    canvas.height = frame.height;
    const place = [left, top, frame.width, frame.height];
    context.drawImage(picture, place[0], place[1], place[2], place[3], 0, 0, place[2], place[3]);
    return true;
  }
}
