// One answer for a film's range that outlasts its token, its connection and its worker: asks again
// with a fresh URL when the old one is refused, and for the missing bytes when a body breaks off.
//
// Runs in the service worker. Nothing here knows that: what it needs of the world is handed in.

import { continues, extentOf, rangeOfTheRest } from "./ranges.js";
import { delayAfter, isPassing, parseRetryAfter } from "./trouble.js";
import { hasOthers } from "./workers.js";

const PATIENCE_MS = 60_000; // after that the page hears of it, and goes on trying in its own way
const SILENCE_MS = 25_000; // a connection that says nothing for so long is taken for dead
// Sooner while there are workers that were not tried: in the middle of a body, and before it begins.
const SILENCE_WITH_OTHERS_MS = 4_000;
const FIRST_SILENCE_WITH_OTHERS_MS = 8_000;
const RENEWALS_MAX = 3; // in a row: whoever is refused with three fresh tokens is not welcome

/** @typedef {import("./ranges.js").Extent} Extent */
/** @typedef {import("./trouble.js").Trouble} Trouble */

/**
 * What the player asked for.
 * @typedef {object} Wanted
 * @property {string} url
 * @property {string | null} range the Range header
 * @property {AbortSignal} signal aborted when the player has lost interest
 */

/**
 * @typedef {object} World
 * @property {(url: string, options: RequestInit) => Promise<Response>} fetch
 * @property {(url: string) => string} freshest the newest URL known in place of this one
 * @property {(url: string, stale: string, attempt: number) => Promise<string>} renew fetches a newer
 *   one in place of `url`, unless somebody has already replaced `stale`
 * @property {(url: string) => boolean} fail notes that the worker of this URL failed; whether another
 *   one should be asked for at once
 * @property {(url: string) => boolean} hasFailed whether that worker failed lately
 * @property {(trouble: Trouble | null) => void} tell why nothing comes; null when it comes again
 * @property {(bytes: number) => void} count
 * @property {() => Promise<void>} news for the moment when a worker is known to have woken up
 * @property {number} [patienceMs]
 * @property {number} [silenceMs]
 */

/**
 * Answer the player's request.
 * @param {Wanted} wanted
 * @param {World} world
 * @returns {Promise<Response>} with a body that mends itself
 */
export async function openLasting(wanted, world) {
  const stream = new LastingStream(wanted, world);
  return stream.open();
}

/** @type {Trouble} */
const NO_ANSWER = { code: "offline", status: 0, retryAfter: 0 };

class LastingStream {
  #wanted;
  #world;
  #closing = new AbortController();
  /** @type {Extent} */
  #extent = { start: 0, stop: null, size: null };
  /** @type {string | null} */
  #tag = null;
  #received = 0;
  #used = ""; // the URL of the body that is read
  #wentSilent = false;
  /** @type {ReadableStreamDefaultReader<Uint8Array> | null} */
  #reader = null;

  /**
   * @param {Wanted} wanted
   * @param {World} world
   */
  constructor(wanted, world) {
    this.#wanted = wanted;
    this.#world = world;
    wanted.signal.addEventListener("abort", () => this.#closing.abort(), { once: true });
    if (wanted.signal.aborted) {
      this.#closing.abort();
    }
  }

  async open() {
    const answer = await this.#ask(this.#wanted.range, new Patience(this.#world.patienceMs));
    const extent = extentOf(answer.status, answer.headers);
    if (!extent || !answer.body) {
      return answer; // an error, an empty file: nothing that could break off
    }
    this.#extent = extent;
    this.#tag = answer.headers.get("ETag");
    this.#reader = answer.body.getReader();
    const { status, statusText, headers } = answer;
    return new Response(this.#body(), { status, statusText, headers });
  }

  #body() {
    return new ReadableStream(
      {
        pull: (controller) => this.#pull(controller),
        cancel: () => this.#closing.abort(),
      },
      // Nothing is read before the player wants it: a paused film holds no more than one chunk.
      { highWaterMark: 0 },
    );
  }

  /**
   * Hand on the next piece, whatever it takes.
   * @param {ReadableStreamDefaultController<Uint8Array>} controller
   */
  async #pull(controller) {
    const patience = new Patience(this.#world.patienceMs);
    for (;;) {
      const piece = await this.#read();
      if (piece) {
        this.#received += piece.byteLength;
        this.#world.count(piece.byteLength);
        if (patience.attempts > 0) {
          this.#world.tell(null);
        }
        controller.enqueue(piece);
        if (this.#isComplete) {
          controller.close();
        }
        return;
      }
      if (this.#isComplete || this.#isOpenEnd) {
        controller.close();
        return;
      }
      await this.#resume(patience);
    }
  }

  get #isComplete() {
    return rangeOfTheRest(this.#extent, this.#received) === null;
  }

  /** Whether the length was never said, so that the end of the body is the end. */
  get #isOpenEnd() {
    return this.#extent.stop === null && this.#reader !== null;
  }

  /**
   * The next piece, or null when this body gives no more, for whatever reason.
   * @returns {Promise<Uint8Array | null>}
   */
  async #read() {
    if (!this.#reader) {
      return null;
    }
    const silence = new Timer(this.#silenceMs(this.#used, SILENCE_WITH_OTHERS_MS));
    try {
      const { done, value } = await Promise.race([this.#reader.read(), silence.rejection]);
      return done ? null : value;
    } catch (error) {
      this.#closing.signal.throwIfAborted();
      if (error instanceof TooLong) {
        this.#wentSilent = true;
      }
      // Whatever broke it (a reset connection, a worker that is gone), the rest is asked for anew.
      this.#reader.cancel(error).catch(() => {
        // a body that is broken already cannot be cancelled, and need not be
      });
      this.#reader = null;
      return null;
    } finally {
      silence.stop();
    }
  }

  /**
   * Ask for what is missing, from the exact next byte.
   * @param {Patience} patience
   */
  async #resume(patience) {
    if (this.#wentSilent && this.#world.fail(this.#used)) {
      await this.#renew(this.#used, patience); // the same one would only be silent again
    } else if (patience.attempts > 0) {
      await this.#pauseFor(NO_ANSWER, patience);
    }
    if (patience.attempts === 0) {
      patience.next(0); // a connection that was cut is most often mended at once
    }
    this.#wentSilent = false;
    const range = rangeOfTheRest(this.#extent, this.#received);
    const answer = await this.#ask(range, patience);
    const extent = extentOf(answer.status, answer.headers);
    const tag = answer.headers.get("ETag");
    if (!answer.body || !continues(this, this.#received, { extent, tag })) {
      this.#closing.abort();
      throw new TypeError("The rest of the file cannot be had.");
    }
    this.#reader = answer.body.getReader();
  }

  get extent() {
    return this.#extent;
  }

  get tag() {
    return this.#tag;
  }

  /**
   * Ask until there is an answer that more asking would not change.
   * @param {string | null} range
   * @param {Patience} patience
   * @returns {Promise<Response>}
   */
  async #ask(range, patience) {
    const { url } = this.#wanted;
    for (let renewals = 0; ; ) {
      const used = this.#world.freshest(url);
      this.#used = used;
      const { answer, trouble } = await this.#askOnce(used, range);
      if (answer && (answer.status === 401 || answer.status === 403)) {
        renewals += 1;
        if (renewals > 1) {
          this.#world.fail(used); // a fresh token: it is this worker that does not know us
        }
        if (renewals > RENEWALS_MAX || !(await this.#renew(used, patience))) {
          return answer;
        }
        continue;
      }
      if (!trouble) {
        return /** @type {Response} */ (answer);
      }
      if (this.#world.fail(used) && (await this.#renew(used, patience))) {
        continue; // to another worker, at the first failure
      }
      if (patience.isOver) {
        if (answer) {
          return answer;
        }
        throw new TypeError("The worker cannot be reached.");
      }
      await this.#pauseFor(trouble, patience);
      if (patience.attempts > 2) {
        await this.#renew(used, patience); // another worker may be well
      }
    }
  }

  /**
   * @param {string} url
   * @param {string | null} range
   * @returns {Promise<{answer?: Response, trouble?: Trouble}>}
   */
  async #askOnce(url, range) {
    const silence = new Timer(this.#silenceMs(url, FIRST_SILENCE_WITH_OTHERS_MS));
    const giveUp = new AbortController();
    const signal = AbortSignal.any([this.#closing.signal, giveUp.signal]);
    try {
      /** @type {Record<string, string>} */
      const headers = range === null ? {} : { Range: range };
      const options = { headers, signal, mode: /** @type {const} */ ("cors") };
      const answer = await Promise.race([
        this.#world.fetch(url, { ...options, credentials: "omit", cache: "no-store" }),
        silence.rejection,
      ]);
      return isPassing(answer.status) ? await readTrouble(answer) : { answer };
    } catch {
      this.#closing.signal.throwIfAborted();
      giveUp.abort();
      return { trouble: NO_ANSWER };
    } finally {
      silence.stop();
    }
  }

  /**
   * How long a connection to this URL may say nothing.
   * @param {string} url
   * @param {number} withOthersMs
   */
  #silenceMs(url, withOthersMs) {
    const mayGo = hasOthers(url) && !this.#world.hasFailed(url);
    return this.#world.silenceMs ?? (mayGo ? withOthersMs : SILENCE_MS);
  }

  /**
   * @param {string} stale
   * @param {Patience} patience
   * @returns {Promise<boolean>} whether there is a newer URL now
   */
  async #renew(stale, patience) {
    try {
      await this.#world.renew(this.#wanted.url, stale, patience.attempts);
      return true;
    } catch {
      return false; // the page, which can say more about it, gets the refusal
    }
  }

  /**
   * @param {Trouble} trouble
   * @param {Patience} patience
   */
  async #pauseFor(trouble, patience) {
    const delayMs = patience.next(trouble.retryAfter);
    this.#world.tell(trouble);
    const timer = new Timer(delayMs);
    const closed = new Promise((_resolve, reject) => {
      const { signal } = this.#closing;
      signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    });
    try {
      await Promise.race([timer.end, this.#world.news(), closed]);
    } finally {
      timer.stop();
    }
  }
}

/** Counts the attempts since the last success and knows when there were enough. */
class Patience {
  attempts = 0;
  #limitMs;
  #began = Date.now();

  constructor(limitMs = PATIENCE_MS) {
    this.#limitMs = limitMs;
  }

  get isOver() {
    return this.attempts > 0 && Date.now() - this.#began > this.#limitMs;
  }

  /**
   * Count an attempt that failed.
   * @param {number} retryAfter in seconds
   * @returns {number} milliseconds to wait before the next one
   */
  next(retryAfter) {
    if (this.attempts === 0) {
      this.#began = Date.now();
    }
    this.attempts += 1;
    return delayAfter(this.attempts - 1, retryAfter);
  }
}

class TooLong extends TypeError {
  constructor() {
    super("It took too long.");
  }
}

/** A delay that can be called off. */
class Timer {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #milliseconds;

  /** @param {number} milliseconds */
  constructor(milliseconds) {
    this.#milliseconds = milliseconds;
  }

  /** Resolves when the time is over. */
  get end() {
    return new Promise((resolve) => {
      this.#timer = setTimeout(resolve, this.#milliseconds);
    });
  }

  /** Rejects when the time is over. */
  get rejection() {
    return this.end.then(() => {
      throw new TooLong();
    });
  }

  stop() {
    clearTimeout(this.#timer);
  }
}

/**
 * Read an error answer to its end, which sets its connection free, and keep what it says.
 * @param {Response} answer
 */
async function readTrouble(answer) {
  const { status, statusText, headers } = answer;
  const text = await answer.text();
  const trouble = {
    code: codeIn(text),
    status,
    retryAfter: parseRetryAfter(headers.get("Retry-After")),
  };
  return { answer: new Response(text, { status, statusText, headers }), trouble };
}

/**
 * The code in our JSON; `unknown` for what a gateway in between says.
 * @param {string} text
 */
function codeIn(text) {
  try {
    return String(JSON.parse(text).error.code);
  } catch {
    return "unknown";
  }
}
