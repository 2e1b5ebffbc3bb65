// Pictures in their full size, from the first worker that gives them, and the next one in advance.

import { fromFirstWorker } from "./first-worker.js";

const AHEAD_MAX_BYTES = 30_000_000; // what nobody has asked for should not hold up what they did

/** @typedef {import("./api.js").MediaFile} MediaFile */

export class Pictures {
  /** The one that was fetched in advance. */
  #ahead = { id: "", picture: /** @type {Promise<HTMLImageElement> | null} */ (null) };

  /**
   * @param {string} id
   * @returns {Promise<HTMLImageElement>} decoded; rejected when it cannot be had
   */
  take(id) {
    const { picture } = this.#ahead;
    const isReady = this.#ahead.id === id && picture;
    this.#ahead = { id: "", picture: null };
    return isReady || load(id);
  }

  /**
   * Fetch one picture, and only that one, before somebody asks for it.
   * @param {string} id
   * @param {MediaFile} file
   */
  prepare(id, { kind, size }) {
    if (kind !== "image" || size > AHEAD_MAX_BYTES || this.#ahead.id === id) {
      return;
    }
    const picture = load(id);
    this.#ahead = { id, picture };
    picture.catch(() => {
      if (this.#ahead.picture === picture) {
        this.#ahead = { id: "", picture: null }; // who opens it tries again, and is told why
      }
    });
  }
}

/**
 * The thumbnail in the place and size that the picture will have.
 * @param {MediaFile} file
 */
export function previewOf({ thumbnail, width, height }) {
  if (!thumbnail || !width || !height) {
    return null;
  }
  const preview = document.createElement("img");
  preview.alt = "";
  preview.className = "preview";
  preview.src = thumbnail;
  preview.style.maxWidth = `${width}px`;
  preview.style.maxHeight = `${height}px`;
  preview.addEventListener("error", () => preview.remove(), { once: true });
  return preview;
}

/**
 * @param {string} id
 * @returns {Promise<HTMLImageElement>}
 */
async function load(id) {
  const image = document.createElement("img");
  return fromFirstWorker(id, async (url) => {
    image.src = url;
    await image.decode();
    return image;
  });
}
