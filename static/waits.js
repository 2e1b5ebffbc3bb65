// Waits that something may end early.

/**
 * Wait, but no longer than until the network is back or the page is closed.
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
export function pause(milliseconds, signal) {
  const done = new AbortController();
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    done.signal.addEventListener("abort", () => clearTimeout(timer));
    window.addEventListener("online", resolve, { signal: done.signal });
    signal.addEventListener("abort", resolve, { signal: done.signal });
  }).finally(() => done.abort());
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<void>} for its end
 */
export function ended(signal) {
  return new Promise((resolve) => {
    signal.addEventListener("abort", () => resolve(undefined), { once: true });
  });
}

/**
 * The first of these events; `closed` or `late` when none comes.
 * @param {HTMLMediaElement} media
 * @param {string[]} names
 * @param {number} patienceMs
 * @param {AbortSignal} closing
 * @returns {Promise<string>}
 */
export function firstOf(media, names, patienceMs, closing) {
  const done = new AbortController();
  return new Promise((resolve) => {
    for (const name of names) {
      media.addEventListener(name, () => resolve(name), { signal: done.signal });
    }
    closing.addEventListener("abort", () => resolve("closed"), { signal: done.signal });
    const timer = setTimeout(() => resolve("late"), patienceMs);
    done.signal.addEventListener("abort", () => clearTimeout(timer));
  }).finally(() => done.abort());
}
