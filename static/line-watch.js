// Notices that a film's worker is gone while the film still plays from what it holds. Where there are
// other workers and no service worker, waiting for the browser's own error would cost half a minute.

import { bufferedAhead } from "./buffered.js";
import { hasOthers, workerOf } from "./workers.js";

const LOOK_EVERY_MS = 400;
const QUIET_MS = 1_000; // no byte came for so long though the element wants more
const HUNGRY_S = 20; // with more than this at hand there is time
const ANSWER_MS = 1_500; // a worker that is well answers its /health at once
const ASK_AGAIN_MAX_MS = 15_000;

/**
 * @param {HTMLMediaElement} media
 * @param {string} url of the film that plays in it
 * @param {() => void} onGone called once
 * @param {AbortSignal} signal
 */
export function watchLine(media, url, onGone, signal) {
  const worker = workerOf(url);
  if (!worker || !hasOthers(url)) {
    return;
  }
  let end = -1;
  let movedAt = performance.now();
  let patienceMs = QUIET_MS;
  let isAsking = false;
  const look = async () => {
    const now = performance.now();
    const ahead = bufferedAhead(media.buffered, media.currentTime);
    const newEnd = media.currentTime + ahead;
    const wantsBytes = media.networkState === HTMLMediaElement.NETWORK_LOADING && ahead < HUNGRY_S;
    if (!wantsBytes || Math.abs(newEnd - end) > 0.05) {
      end = newEnd;
      movedAt = now;
      patienceMs = QUIET_MS;
    } else if (now - movedAt >= patienceMs && !isAsking) {
      isAsking = true;
      const isThere = await answers(worker);
      isAsking = false;
      movedAt = performance.now();
      patienceMs = Math.min(2 * patienceMs, ASK_AGAIN_MAX_MS);
      if (!isThere && !signal.aborted) {
        clearInterval(timer);
        onGone();
      }
    }
  };
  const timer = setInterval(() => void look(), LOOK_EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}

/** @param {string} worker */
async function answers(worker) {
  try {
    const signal = AbortSignal.timeout(ANSWER_MS);
    const response = await fetch(`${worker}/health`, {
      cache: "no-store",
      credentials: "omit",
      signal,
    });
    return response.ok;
  } catch {
    return !navigator.onLine; // without any network no other worker could be reached either
  }
}
