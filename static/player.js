// Keeps one <video> or <audio> playing: fetches a URL, and a fresh one when the old one fails.

import { ApiError, errorFrom } from "./api.js";

const SHOW_AFTER_MS = 300; // shorter waits are not worth a word
const FIRST_DELAY_MS = 400;
const LONGEST_DELAY_MS = 4_000;
const ATTEMPTS_MAX = 100; // with the delays above between six and seven minutes
const LOAD_PATIENCE_MS = 30_000; // Telegram can ask for that long in the middle of a film
const STALL_PATIENCE_MS = 15_000; // Chromium mends a cut connection by itself in a second or two

/**
 * What the viewer shows: a word while it works, a sentence when it has given up.
 * @typedef {object} PlayerView
 * @property {(text: string | null) => void} showStatus
 * @property {(text: string | null) => void} showProblem
 */

export class Player {
  /** Where the film was and whether it ran, as the person wants it, not as a broken element says. */
  #wanted = { position: 0, playing: false, speed: 1 };
  #isRecovering = false;
  #closing = new AbortController();
  #statusTimer = 0;
  #stallTimer = 0;

  /**
   * @param {HTMLMediaElement} media
   * @param {(attempt: number) => Promise<{url: string}>} sign
   * @param {PlayerView} view
   */
  constructor(media, sign, view) {
    this.media = media;
    this.sign = sign;
    this.view = view;
    this.#listen();
  }

  /** Load the film and play it, if the browser lets a page do so without a click. */
  async open() {
    this.#wanted.playing = true;
    await this.#recover("Loading…", { reloadAtOnce: true });
  }

  /** Begin again after giving up. */
  async retry() {
    await this.#recover("Reconnecting…", { reloadAtOnce: false });
  }

  /** Stop, and let go of the connection: without `load` the browser goes on fetching. */
  close() {
    this.#closing.abort();
    this.#showStatus(null);
    clearTimeout(this.#stallTimer);
    this.media.removeAttribute("src");
    this.media.load();
  }

  #listen() {
    const { media } = this;
    const options = { signal: this.#closing.signal };
    /** @type {(names: string[], action: () => void) => void} */
    const on = (names, action) => {
      for (const name of names) {
        media.addEventListener(name, action, options);
      }
    };
    on(["play"], () => this.#want({ playing: true }));
    on(["pause"], () => this.#want({ playing: false }));
    on(["timeupdate", "seeking"], () => this.#want({ position: media.currentTime }));
    on(["ratechange"], () => this.#want({ speed: media.playbackRate }));
    on(["waiting", "stalled", "seeking"], () => this.#onWaiting());
    on(["playing", "canplay", "seeked", "timeupdate", "pause"], () => this.#onMoving());
    on(["progress"], () => this.#watchForStall());
    on(["error"], () => void this.#onError());
  }

  /**
   * Remember what the person wants, except while the element is being reloaded and reports nonsense.
   * @param {Partial<{position: number, playing: boolean, speed: number}>} change
   */
  #want(change) {
    if (!this.#isRecovering && !this.media.error) {
      Object.assign(this.#wanted, change);
    }
  }

  get #isStarved() {
    const { media } = this;
    return media.readyState < HTMLMediaElement.HAVE_FUTURE_DATA && !media.ended;
  }

  #onWaiting() {
    if (!this.#isRecovering && this.#isStarved && !(this.media.paused && !this.media.seeking)) {
      this.#showStatus("Buffering…");
      this.#watchForStall();
    }
  }

  #onMoving() {
    if (!this.#isRecovering && (!this.#isStarved || this.media.paused) && !this.media.seeking) {
      this.#showStatus(null);
      clearTimeout(this.#stallTimer);
    }
  }

  /** Bytes that stop coming without an error get a fresh URL too, in time. */
  #watchForStall() {
    clearTimeout(this.#stallTimer);
    this.#stallTimer = window.setTimeout(() => {
      if (this.#isStarved && (!this.media.paused || this.media.seeking)) {
        void this.#recover("Reconnecting…", { reloadAtOnce: false });
      }
    }, STALL_PATIENCE_MS);
  }

  async #onError() {
    if (this.#isRecovering || !this.media.error) {
      return;
    }
    if (this.media.error.code === MediaError.MEDIA_ERR_DECODE) {
      this.view.showProblem("This file is damaged here, or in a form this browser cannot play.");
      return;
    }
    await this.#recover("Reconnecting…", { reloadAtOnce: false });
  }

  /**
   * Fetch URLs until one plays. The one place that sets `src`.
   * @param {string} status
   * @param {{reloadAtOnce: boolean}} how whether to load unasked: asking first tells why it fails
   */
  async #recover(status, { reloadAtOnce }) {
    if (this.#isRecovering) {
      return;
    }
    this.#isRecovering = true;
    clearTimeout(this.#stallTimer);
    this.view.showProblem(null);
    this.#showStatus(status);
    const { signal } = this.#closing;
    try {
      for (let attempt = 0; !signal.aborted; attempt += 1) {
        const problem = await this.#try(attempt, reloadAtOnce && attempt === 0);
        if (!problem || signal.aborted) {
          break;
        }
        if (!problem.isPassing || attempt >= ATTEMPTS_MAX) {
          this.view.showProblem(problem.message);
          break;
        }
        this.#showStatus(describe(problem));
        await pause(delayAfter(attempt, problem.retryAfter), signal);
      }
    } finally {
      this.#isRecovering = false;
      this.#showStatus(null);
      if (!signal.aborted && this.#isStarved && this.#wanted.playing) {
        this.#onWaiting();
      }
    }
  }

  /**
   * One attempt: sign, ask for a byte, load. Returns what went wrong, or null.
   * @param {number} attempt
   * @param {boolean} reloadAtOnce
   * @returns {Promise<ApiError | null>}
   */
  async #try(attempt, reloadAtOnce) {
    try {
      const { url } = await this.sign(attempt);
      if (!reloadAtOnce) {
        await probe(url, this.#closing.signal);
      }
      if (await this.#load(url)) {
        return null;
      }
      if (reloadAtOnce) {
        return new ApiError("not_loaded", "The film cannot be loaded.");
      }
      // The bytes are there, so it is what they are that the browser does not like.
      return new ApiError(
        "not_playable",
        "This browser cannot play this kind of file. Download it, or open it in a player such as VLC.",
        415,
      );
    } catch (error) {
      return error instanceof ApiError ? error : new ApiError("offline", "The connection is gone.");
    }
  }

  /**
   * Put the film back to where it was on this URL.
   * @param {string} url
   * @returns {Promise<boolean>} whether the browser took it
   */
  async #load(url) {
    const { media } = this;
    const { position, playing, speed } = this.#wanted;
    media.src = url;
    media.load();
    const outcome = await firstOf(media, ["loadedmetadata", "error"], this.#closing.signal);
    if (outcome !== "loadedmetadata") {
      return outcome === "closed";
    }
    media.playbackRate = speed;
    if (position > 0) {
      media.currentTime = position;
    }
    if (playing) {
      // A page may be forbidden to play with sound unasked. Then the film waits for a click.
      media.play().catch(() => this.#want({ playing: false }));
    }
    return true;
  }

  /** @param {string | null} text */
  #showStatus(text) {
    clearTimeout(this.#statusTimer);
    if (text === null) {
      this.view.showStatus(null);
      return;
    }
    this.#statusTimer = window.setTimeout(() => this.view.showStatus(text), SHOW_AFTER_MS);
  }
}

/**
 * Ask for one byte, because a media element does not tell why it failed and the worker does.
 * @param {string} url
 * @param {AbortSignal} signal
 */
async function probe(url, signal) {
  const response = await fetch(url, { headers: { Range: "bytes=0-0" }, cache: "no-store", signal });
  if (!response.ok) {
    const error = await errorFrom(response);
    // A refused token is replaced by the next attempt; a missing file stays missing.
    throw error.status === 401 ? new ApiError(error.code, error.message) : error;
  }
  await response.body?.cancel();
}

/** @param {ApiError} problem */
function describe({ code, retryAfter }) {
  if (retryAfter > 5) {
    return `Telegram asks to wait ${Math.ceil(retryAfter)} s…`;
  }
  if (code === "offline" && !navigator.onLine) {
    return "No connection. The film goes on when it is back…";
  }
  return "Reconnecting…";
}

/**
 * @param {number} attempt
 * @param {number} retryAfter
 */
export function delayAfter(attempt, retryAfter) {
  const backOff = Math.min(FIRST_DELAY_MS * 2 ** attempt, LONGEST_DELAY_MS);
  return Math.max(retryAfter * 1000, backOff * (0.75 + Math.random() / 2));
}

/**
 * Wait, but no longer than until the network is back or the page is closed.
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    const end = () => {
      clearTimeout(timer);
      resolve(undefined);
    };
    window.addEventListener("online", end, { once: true, signal });
    signal.addEventListener("abort", end, { once: true });
  });
}

/**
 * The first of these events; `closed` or `late` when none comes.
 * @param {HTMLMediaElement} media
 * @param {string[]} names
 * @param {AbortSignal} closing
 * @returns {Promise<string>}
 */
function firstOf(media, names, closing) {
  const done = new AbortController();
  return new Promise((resolve) => {
    for (const name of names) {
      media.addEventListener(name, () => resolve(name), { signal: done.signal });
    }
    closing.addEventListener("abort", () => resolve("closed"), { signal: done.signal });
    const timer = setTimeout(() => resolve("late"), LOAD_PATIENCE_MS);
    done.signal.addEventListener("abort", () => clearTimeout(timer));
  }).finally(() => done.abort());
}
