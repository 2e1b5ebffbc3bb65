// What surrounds a film beyond playing it: frames while seeking, subtitles, and a plain word with ways
// out where the browser cannot play it. The same in the gallery and on the pages of links.

import { Playable } from "./playable.js";
import { SeekPreview } from "./seek-preview.js";
import { Subtitles } from "./subtitles.js";

/** @typedef {import("./playable.js").Film & {has_storyboard: boolean}} Film */
/** Fresh URLs at the worker. @typedef {{storyboard: string | null, tracks: string | null}} Extras */

/**
 * @typedef {object} Surroundings
 * @property {HTMLElement} stage holds the film; another element may take the film's place in it
 * @property {() => HTMLMediaElement | null} media the one that plays now
 * @property {Film} film
 * @property {(failed: string) => Promise<Extras>} sign
 * @property {() => Promise<import("./subtitles.js").Subtitle[]>} listSubtitles
 * @property {() => import("./playable.js").Way[]} ways to have the film elsewhere
 * @property {(text: string | null) => void} showStatus
 * @property {import("./subtitles.js").Menu} [menu]
 * @property {AbortSignal} signal the end of it
 */

export class FilmExtras {
  /** @type {Subtitles | null} */
  #subtitles = null;
  #playable;

  /** @param {Surroundings} around */
  constructor({ stage, media, film, sign, listSubtitles, ways, showStatus, menu, signal }) {
    const isFilm = film.kind === "video";
    if (isFilm) {
      this.#subtitles = new Subtitles({ stage, media, list: listSubtitles, menu, signal });
    }
    if (isFilm && film.has_storyboard) {
      const signBoard = async (/** @type {string} */ failed) => (await sign(failed)).storyboard;
      new SeekPreview({ stage, media, sign: signBoard, signal });
    }
    this.#playable = new Playable({
      stage,
      media,
      film,
      sign: async (failed) => (await sign(failed)).tracks,
      ways,
      onHead: ({ tracks }) => this.#subtitles?.tellEmbedded(tracks),
      showStatus,
      signal,
    });
  }

  /** @see Playable.mayPlay @param {() => void} play */
  mayPlay(play) {
    return this.#playable.mayPlay(play);
  }

  /**
   * @see Playable.explain
   * @param {string} text
   * @param {() => void} retry
   */
  explain(text, retry) {
    return this.#playable.explain(text, retry);
  }

  /** Take back what was said of the film. */
  clear() {
    this.#playable.clear();
  }

  toggleSubtitles() {
    this.#subtitles?.toggle();
  }
}
