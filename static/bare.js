// A finger that taps a picture puts everything else away, and brings it back; two taps zoom.

const MOVED_PX = 10;
const SECOND_TAP_MS = 320;
const HELD_MS = 500;

/**
 * @param {HTMLElement} stage
 * @param {() => boolean} isPicture
 * @param {() => void} onTap one tap, and no second one after it
 */
export function listenToTaps(stage, isPicture, onTap) {
  let start = { id: -1, x: 0, y: 0, at: 0 };
  let timer = 0;
  stage.addEventListener("pointerdown", (event) => {
    const isSecond = timer !== 0;
    clearTimeout(timer);
    timer = 0;
    const isTap = event.pointerType === "touch" && event.isPrimary && !isSecond && isPicture();
    const id = isTap ? event.pointerId : -1; // a second finger ends it too
    start = { id, x: event.clientX, y: event.clientY, at: event.timeStamp };
  });
  stage.addEventListener("pointerup", (event) => {
    const isStill = Math.hypot(event.clientX - start.x, event.clientY - start.y) < MOVED_PX;
    const isShort = event.timeStamp - start.at < HELD_MS;
    if (event.pointerId === start.id && isStill && isShort) {
      timer = window.setTimeout(() => {
        timer = 0;
        onTap();
      }, SECOND_TAP_MS);
    }
  });
}
