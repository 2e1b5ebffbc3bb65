// Changes a playing element's URL without a visible gap: a twin is started on the new one, hidden,
// a little ahead of the old one, and takes its place when the old one has caught up with it.

import { bufferedAhead } from "./buffered.js";
import { dropSource, LEVELS_FAILED, setSource } from "./levels.js";

const LEADS_S = [1, 2.5, 6]; // how far ahead the twin waits; further when it was not ready in time
const READY_S = 1; // what it must hold before its turn, or it would stop again at once
const START_UP_S = 0.1; // what an element takes from `play` to the first new picture, or a little more
const IN_STEP_S = 0.03; // less than a picture of 24 in a second
const IN_STEP_PATIENCE_MS = 4_000;
const TOO_FAR_S = 0.15; // a jump that somebody would notice
const SOUGHT_S = 2; // nothing but a seek brings them so far from one another
const MEETINGS_MAX = 3;
const PATIENCE_MS = 30_000; // Telegram can ask for that long in the middle of a film
const LOOK_EVERY_MS = 15;
const ASK_EVERY_MS = 200; // whether the twin is ready, beside the events that should tell

/**
 * What the person wants of the film, whatever state its element is in.
 * @typedef {object} Wish
 * @property {number} position in seconds
 * @property {boolean} playing
 * @property {number} speed
 * @property {number} volume
 * @property {boolean} muted
 */

/**
 * Whether a twin would do: picture-in-picture, and full screen of the element itself, belong to one
 * element and would end with it.
 * @param {HTMLMediaElement} media
 */
export function canChangeOver(media) {
  const isTaken = [document.pictureInPictureElement, document.fullscreenElement].includes(media);
  return media.isConnected && !isTaken;
}

/**
 * Start a twin on `url` and put it in the place of `old`.
 * @param {HTMLMediaElement} old playing, paused or broken
 * @param {string} url
 * @param {Wish} wish
 * @param {AbortSignal} signal
 * @param {() => void} onTurn called before the old one is stopped: what it says from now on is void
 * @returns {Promise<HTMLMediaElement | null>} the twin; null, and nothing changed, when it failed
 */
export async function changeOver(old, url, wish, signal, onTurn) {
  const twin = makeTwin(old, wish);
  old.after(twin);
  try {
    setSource(twin, url, wish.position);
    await until(twin, ["loadedmetadata"], () => twin.readyState > 0, signal);
    await comeTogether(old, twin, wish, signal);
  } catch {
    discard(twin);
    return null; // whoever asked knows more about why, and what to do
  }
  onTurn();
  copyTracks(old, twin);
  const hadFocus = document.activeElement === old;
  old.muted = true;
  twin.muted = wish.muted;
  twin.controls = true;
  twin.classList.remove("is-waiting");
  if (hadFocus) {
    twin.focus({ preventScroll: true });
  }
  discard(old);
  return twin;
}

/**
 * @param {HTMLMediaElement} old
 * @param {Wish} wish
 */
function makeTwin(old, wish) {
  const twin = /** @type {HTMLMediaElement} */ (old.cloneNode(true));
  twin.removeAttribute("src");
  twin.removeAttribute("poster");
  twin.classList.add("is-waiting");
  twin.controls = false;
  twin.preload = "auto";
  twin.muted = true;
  twin.volume = wish.volume;
  twin.defaultPlaybackRate = wish.speed;
  twin.playbackRate = wish.speed;
  return twin;
}

/**
 * Have both at the same picture, also when somebody seeks meanwhile.
 * @param {HTMLMediaElement} old
 * @param {HTMLMediaElement} twin
 * @param {Wish} wish
 * @param {AbortSignal} signal
 * @returns {Promise<void>} rejected when they seek over and over
 */
async function comeTogether(old, twin, wish, signal) {
  for (let meetings = 0; meetings < MEETINGS_MAX; meetings += 1) {
    await meet(old, twin, wish, signal);
    if (wish.playing) {
      await twin.play();
      await fallInStep(old, twin, wish, signal);
    }
    if (Math.abs(twin.currentTime - wish.position) <= SOUGHT_S * wish.speed) {
      return;
    }
    twin.pause();
  }
  throw new Error("sought");
}

/**
 * Bring the twin to where the old one is, at the moment it is there.
 * @param {HTMLMediaElement} old
 * @param {HTMLMediaElement} twin
 * @param {Wish} wish
 * @param {AbortSignal} signal
 */
async function meet(old, twin, wish, signal) {
  for (const lead of LEADS_S) {
    const isMoving = isRunning(old, wish);
    const from = isMoving ? old.currentTime + lead * wish.speed : wish.position;
    const goal = Math.min(from, Math.max(0, twin.duration - 0.05));
    twin.currentTime = goal;
    await until(
      twin,
      ["seeked", "canplay", "progress", "suspend"],
      () => isReady(twin, wish.playing ? READY_S : 0),
      signal,
    );
    // The old one may stop on the way, for want of bytes: then there is nothing to wait for.
    const start = goal - START_UP_S * wish.speed;
    while (isRunning(old, wish) && old.currentTime < start && !signal.aborted) {
      await moment();
    }
    // Somebody may have moved it meanwhile, or stopped it, or the twin was not ready in time.
    if (old.error || Math.abs(old.currentTime - goal) <= TOO_FAR_S) {
      return;
    }
  }
}

/**
 * Both play now, one of them hidden and silent: that one walks faster or slower until they are at
 * the same picture.
 * @param {HTMLMediaElement} old
 * @param {HTMLMediaElement} twin
 * @param {Wish} wish
 * @param {AbortSignal} signal
 */
async function fallInStep(old, twin, wish, signal) {
  const end = performance.now() + IN_STEP_PATIENCE_MS;
  while (isRunning(old, wish) && performance.now() < end && !signal.aborted) {
    const ahead = (twin.currentTime - old.currentTime) / wish.speed;
    if (Math.abs(ahead) <= IN_STEP_S || Math.abs(ahead) > SOUGHT_S) {
      break;
    }
    twin.playbackRate = wish.speed * Math.min(1.5, Math.max(0.5, 1 - 2 * ahead));
    await moment();
  }
  twin.playbackRate = wish.speed;
  if (!wish.playing) {
    twin.pause();
    twin.currentTime = old.currentTime;
  }
}

/**
 * @param {HTMLMediaElement} old
 * @param {Wish} wish
 */
function isRunning(old, wish) {
  return wish.playing && !old.error && !old.paused && !old.seeking && old.readyState >= 3;
}

function moment() {
  return new Promise((resolve) => setTimeout(resolve, LOOK_EVERY_MS));
}

/**
 * @param {HTMLMediaElement} twin
 * @param {number} seconds it should hold beyond its position
 */
function isReady({ seeking, readyState, buffered, currentTime, duration }, seconds) {
  const ahead = bufferedAhead(buffered, currentTime);
  const isFull = ahead >= seconds || currentTime + ahead > duration - 0.5;
  return !seeking && readyState >= (seconds > 0 ? 3 : 2) && isFull;
}

/**
 * The language somebody chose is chosen again; the tracks come in the same order.
 * @param {HTMLMediaElement} old
 * @param {HTMLMediaElement} twin
 */
function copyTracks(old, twin) {
  for (const [index, track] of [...old.textTracks].entries()) {
    const same = twin.textTracks[index];
    if (same) {
      same.mode = track.mode;
    }
  }
}

/** @param {HTMLMediaElement} media */
function discard(media) {
  media.pause();
  dropSource(media);
  media.remove();
}

/**
 * Wait for one of these events until the condition holds.
 * @param {HTMLMediaElement} media
 * @param {string[]} names
 * @param {() => boolean} condition
 * @param {AbortSignal} signal
 * @returns {Promise<void>} rejected when the element fails, when it takes too long or is called off
 */
function until(media, names, condition, signal) {
  const done = new AbortController();
  return new Promise((resolve, reject) => {
    const look = () => condition() && resolve(undefined);
    const timer = setTimeout(() => reject(new Error("late")), PATIENCE_MS);
    // Firefox says of a file that it has whole already that it is there, then nothing more.
    const looking = setInterval(look, ASK_EVERY_MS);
    done.signal.addEventListener("abort", () => {
      clearTimeout(timer);
      clearInterval(looking);
    });
    for (const name of names) {
      media.addEventListener(name, look, { signal: done.signal });
    }
    media.addEventListener("error", () => reject(media.error), { signal: done.signal });
    media.addEventListener(LEVELS_FAILED, () => reject(new Error("levels")), {
      signal: done.signal,
    });
    signal.addEventListener("abort", () => reject(signal.reason), { signal: done.signal });
    look();
  }).finally(() => done.abort());
}
