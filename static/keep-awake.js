// Keeps a free host awake while a film plays. Such hosts put a service to sleep after a quarter of
// an hour without a request, and an open answer may not count as one.

const EVERY_MS = 4 * 60_000;

/**
 * Ask lightly every few minutes, for as long as there is somebody to keep awake for.
 * @param {() => string | null} playingFrom the worker of the film that plays now; null while none does
 * @param {AbortSignal} signal
 */
export function keepAwake(playingFrom, signal) {
  const timer = setInterval(() => {
    const worker = playingFrom();
    if (worker) {
      touch(`${worker}/health`);
      touch("/health"); // the gallery signs the next URL, and should not have to wake up first
    }
  }, EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

/** @param {string} url */
function touch(url) {
  fetch(url, { cache: "no-store", credentials: "omit" }).catch(() => {
    // that it was asked is all; whether it answers the film finds out by itself
  });
}
