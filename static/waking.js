// Wakes the workers: a free host puts them to sleep when nobody watches and needs up to a minute to
// start them again. They are asked from here, at once, and what can be said meanwhile is said.

const USUAL_S = 60; // what a free host may take
const SHOW_AFTER_MS = 1_500; // whoever answers sooner was not asleep
const KNOCK_MS = 20_000; // a host may hold the request until the worker is up, or forget it
const AGAIN_MS = 1_500;
const SLOWLY_AFTER_MS = 120_000;
const AGAIN_SLOWLY_MS = 5_000;
const TICK_MS = 1_000;

/**
 * @typedef {object} Progress
 * @property {number} seconds since the first knock
 * @property {number | null} share of the usual time, from 0 to 1; null when that is over
 */

/**
 * How far it is, honestly: nobody but the host knows, so it is the time that is shown.
 * @param {number} milliseconds
 * @returns {Progress}
 */
export function progressAfter(milliseconds) {
  const seconds = Math.floor(milliseconds / 1000);
  return { seconds, share: seconds <= USUAL_S ? seconds / USUAL_S : null };
}

/**
 * What is said under "Waking the worker…".
 * @param {Progress} progress
 * @param {string} next what happens when it is awake
 */
export function describeWaking({ seconds, share }, next) {
  return share === null
    ? `It takes longer than usual: ${seconds}\u00a0s so far. ${next}`
    : `A free host lets it sleep when nobody watches and needs about a minute to wake it: ${seconds}\u00a0s so far. ${next}`;
}

export class Waking {
  #workers;
  #onChange;
  #mayAsk;
  /** Those that were asked and have not answered yet. @type {Map<string, Promise<void>>} */
  #asleep = new Map();
  #since = 0;
  #tick = 0;
  #isShown = false;
  /** Those that wait for the person to come back. @type {Set<() => void>} */
  #resting = new Set();

  /**
   * @param {string[]} workers
   * @param {(progress: Progress | null) => void} onChange null: one of them is awake
   * @param {() => boolean} mayAsk whether somebody is there to ask for
   */
  constructor(workers, onChange, mayAsk = () => true) {
    this.#workers = workers;
    this.#onChange = onChange;
    this.#mayAsk = mayAsk;
  }

  /** Knock at every worker. Those that are being waited for already are not asked twice. */
  start() {
    for (const resume of this.#resting) {
      resume();
    }
    this.#resting.clear();
    if (this.#asleep.size === 0) {
      this.#since = Date.now();
    }
    for (const worker of this.#workers) {
      if (!this.#asleep.has(worker)) {
        this.#asleep.set(worker, this.#wake(worker));
      }
    }
    clearInterval(this.#tick);
    this.#tick = setInterval(() => this.#draw(), TICK_MS);
  }

  /** What to show; null when there is nothing to wait for, or not long enough. */
  get progress() {
    const waitedMs = Date.now() - this.#since;
    const isWaiting = this.#asleep.size > 0 && this.#asleep.size === this.#workers.length;
    return isWaiting && waitedMs >= SHOW_AFTER_MS ? progressAfter(waitedMs) : null;
  }

  /**
   * For the moment when this worker is awake; null if it is not known to sleep.
   * @param {string | null} worker
   * @returns {Promise<void> | null}
   */
  untilAwake(worker) {
    return this.progress === null ? null : (this.#asleep.get(worker ?? "") ?? null);
  }

  /** @param {string} worker */
  async #wake(worker) {
    while (!(await knock(worker))) {
      if (this.#asleep.size < this.#workers.length) {
        break; // another one is awake: this one was asked, and takes its time
      }
      if (!this.#mayAsk()) {
        await new Promise((resolve) => this.#resting.add(() => resolve(undefined)));
        continue;
      }
      const isLong = Date.now() - this.#since > SLOWLY_AFTER_MS;
      await new Promise((resolve) => setTimeout(resolve, isLong ? AGAIN_SLOWLY_MS : AGAIN_MS));
    }
    this.#asleep.delete(worker);
    this.#draw();
  }

  #draw() {
    const { progress } = this;
    if (this.#asleep.size < this.#workers.length) {
      clearInterval(this.#tick);
    }
    if (progress || this.#isShown) {
      this.#isShown = progress !== null;
      this.#onChange(progress);
    }
  }
}

/**
 * @param {string} worker
 * @returns {Promise<boolean>} whether a worker answers there
 */
async function knock(worker) {
  try {
    const signal = AbortSignal.timeout(KNOCK_MS);
    const options = {
      cache: /** @type {const} */ ("no-store"),
      credentials: /** @type {const} */ ("omit"),
      signal,
    };
    const response = await fetch(`${worker}/health`, options);
    return response.ok && Array.isArray((await response.json()).telegram);
  } catch {
    return false; // asleep, or away: a host's gateway says so without the headers that pages need
  }
}
