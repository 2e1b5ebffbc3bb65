// Workers as a page sees them: which one a film's URL is at, whether there are others, and which of
// them failed this browser lately. Pure.

const AVOID_MS = 30_000; // then a worker that failed may be well again
const REMEMBERED_MAX = 16; // as many as the gallery listens to

/**
 * The worker's address: all of a URL before its path there. Null for a URL at no worker.
 * @param {string} url of a film or of what is told of it
 */
export function workerOf(url) {
  const end = url.search(/\/(stream|thumbnail|hls|storyboard|tracks)\/-?\d+\//);
  return end > 0 ? url.slice(0, end) : null;
}

/**
 * Whether the gallery has other workers that could serve this film: it then asks the worker to tell
 * of trouble at once rather than to hold the player.
 * @param {string} url
 */
export function hasOthers(url) {
  return /[?&]hold=0(&|$)/.test(url);
}

/** The workers that failed lately, which the gallery is asked to avoid. */
export class Failures {
  /** When each failed last. @type {Map<string, number>} */
  #failedAt = new Map();
  #clock;

  /** @param {() => number} clock in milliseconds */
  constructor(clock = () => Date.now()) {
    this.#clock = clock;
  }

  /**
   * Note that the worker of this URL failed.
   * @param {string} url
   * @returns {boolean} whether it is worth asking for another one at once: there are others, and
   *   this one had not failed before
   */
  note(url) {
    const worker = workerOf(url);
    if (!worker || !hasOthers(url)) {
      return false;
    }
    const isNews = !this.has(url);
    this.#failedAt.delete(worker); // to the end of the queue
    this.#failedAt.set(worker, this.#clock());
    for (const oldest of [...this.#failedAt.keys()].slice(0, -REMEMBERED_MAX)) {
      this.#failedAt.delete(oldest);
    }
    return isNews;
  }

  /**
   * Whether the worker of this URL failed lately.
   * @param {string} url
   */
  has(url) {
    const failedAt = this.#failedAt.get(workerOf(url) ?? "");
    return failedAt !== undefined && this.#clock() - failedAt < AVOID_MS;
  }

  /**
   * What the gallery is told when it is asked for another URL.
   * @param {number} attempt how often something failed, this time
   */
  query(attempt) {
    const query = new URLSearchParams({ attempt: String(attempt) });
    for (const [worker, failedAt] of this.#failedAt) {
      if (this.#clock() - failedAt < AVOID_MS) {
        query.append("avoid", worker);
      }
    }
    return String(query);
  }
}
