// The page's side of the service worker that keeps films going: starts it, keeps it awake, and
// listens to what it says. A browser that has none (a private window, plain http) plays without.

/** @typedef {import("./trouble.js").Trouble} Trouble */

const STAY_EVERY_MS = 20_000; // browsers end a service worker that hears nothing for 30 s

/** Begin to guard this page's films; from the second visit on they are guarded from the start. */
export function startGuard() {
  // A browser that cannot or must not run it says no here. The player then renews by itself.
  navigator.serviceWorker?.register("/service-worker.js", { type: "module" }).catch(() => {});
}

/** Tell it that a worker has woken up: whoever waits for one tries again at once. */
export function tellAwake() {
  navigator.serviceWorker?.controller?.postMessage("awake");
}

/** Whether requests of this page go through the service worker now. */
export function isGuarded() {
  return Boolean(navigator.serviceWorker?.controller);
}

/**
 * Hear of one file's trouble and of its bytes, for as long as it is open.
 * @param {string} file as `fileId` makes it
 * @param {{onTrouble: (trouble: Trouble | null) => void, onBytes: (bytes: number) => void}} listener
 * @param {AbortSignal} signal
 */
export function listenToGuard(file, { onTrouble, onBytes }, signal) {
  const guard = navigator.serviceWorker;
  if (!guard) {
    return;
  }
  guard.addEventListener(
    "message",
    ({ data }) => {
      if (data.file === file && "bytes" in data) {
        onBytes(data.bytes);
      } else if (data.file === file) {
        onTrouble(data.trouble);
      }
    },
    { signal },
  );
  guard.startMessages();
  const timer = setInterval(() => guard.controller?.postMessage("stay"), STAY_EVERY_MS);
  signal.addEventListener("abort", () => clearInterval(timer), { once: true });
}
