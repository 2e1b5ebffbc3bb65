// Where each film was left, remembered by this browser alone.

const KEY = "rangegram.positions";
const REMEMBERED_MAX = 300; // films; the ones left longest ago are forgotten first
const BARELY_BEGUN_S = 15;
const ALMOST_OVER_S = 20;
const ALMOST_OVER_SHARE = 0.97; // the credits of a long film

/** @typedef {{at: number, duration: number}} Position in seconds */

/**
 * Where to go on; 0 for a film barely begun or as good as over.
 * @param {Position | undefined} left
 */
export function resumeAt(left) {
  if (!left || !(left.at >= BARELY_BEGUN_S)) {
    return 0;
  }
  const isOver =
    left.duration - left.at < ALMOST_OVER_S || left.at > left.duration * ALMOST_OVER_SHARE;
  return isOver ? 0 : left.at;
}

/**
 * The film's place among the others, the latest last and the oldest dropped.
 * @param {Record<string, Position>} positions
 * @param {string} id
 * @param {Position} position
 * @returns {Record<string, Position>}
 */
export function withPosition(positions, id, position) {
  const { [id]: _old, ...others } = positions;
  const kept = Object.entries(others).slice(-(REMEMBERED_MAX - 1));
  return { ...Object.fromEntries(kept), [id]: position };
}

/** @returns {Record<string, Position>} */
function read() {
  try {
    return JSON.parse(localStorage.getItem(KEY) ?? "{}");
  } catch {
    return {}; // storage is off, or something else wrote there
  }
}

/**
 * Where this film was left; 0 when it is to begin at the start.
 * @param {string} id
 */
export function recallPosition(id) {
  return resumeAt(read()[id]);
}

/**
 * How much of the film has been seen, from 0 to 1, for the line on its card.
 * @param {string} id
 */
export function shareSeen(id) {
  const left = read()[id];
  return left && resumeAt(left) > 0 ? left.at / left.duration : 0;
}

/**
 * @param {string} id
 * @param {Position} position
 */
export function rememberPosition(id, position) {
  if (!Number.isFinite(position.duration)) {
    return;
  }
  try {
    localStorage.setItem(KEY, JSON.stringify(withPosition(read(), id, position)));
  } catch {
    return; // storage is off or full: the film then starts at its beginning, as everywhere
  }
}
