// The player of a share link, in a frame and on the page for people: keys, and a film that goes on by
// itself when its address has run out. `?t=90&autoplay=1&muted=1&loop=1` says how it begins.

import { canChangeOver, changeOver } from "./change-over.js";
import { formatSize } from "./format.js";
import { keepAwake } from "./keep-awake.js";
import {
  areLevelsGivenUp,
  canPlayLevels,
  chooseLevel,
  forgiveLevels,
  giveUpLevels,
  LEVELS_FAILED,
  levelHeights,
  levelsToPlay,
  setSource,
} from "./levels.js";
import { watchLine } from "./line-watch.js";
import { isPlaylist, ORIGINAL, optionsOf, recallQuality, rememberQuality } from "./qualities.js";
import { surroundShared } from "./share-extras.js";
import { announceSong } from "./song-session.js";
import { delayAfter, describeTrouble, isPassing, parseRetryAfter } from "./trouble.js";
import { Waking } from "./waking.js";
import { Failures, workerOf } from "./workers.js";

/** @typedef {import("./trouble.js").Trouble} Trouble */

const SHOW_AFTER_MS = 300; // shorter waits are not worth a word
const STALL_PATIENCE_MS = 15_000; // a browser mends a cut connection by itself in a second or two
const STALE_PATIENCE_MS = 500; // Chromium asks an address that answers 401 for half a minute
const LOAD_PATIENCE_MS = 30_000; // Telegram can ask for that long in the middle of a film
const ATTEMPTS_MAX = 100; // with the delays of trouble.js between six and seven minutes
const POINTED_AT_MS = 3_000;
const SKIP_S = 5;
const LONG_SKIP_S = 10;
const VOLUME_STEP = 0.1;
const SCROLL_KEYS = [" ", "ArrowUp", "ArrowDown", "Home"];

const NOT_PLAYABLE = "This browser cannot play this kind of film.";
const UNREACHABLE = "The film cannot be reached.";

const stage = /** @type {HTMLElement} */ (document.getElementById("stage"));
/** The element that plays now; another one takes its place when the film moves. */
let film = /** @type {HTMLMediaElement} */ (document.getElementById("film"));
let listening = new AbortController();
const statusLine = /** @type {HTMLElement} */ (document.getElementById("status"));
const problem = /** @type {HTMLElement} */ (document.getElementById("problem"));
const problemText = /** @type {HTMLElement} */ (document.getElementById("problem-text"));
const retry = /** @type {HTMLElement} */ (document.getElementById("retry"));
/** Songs have none. */
const menu = /** @type {HTMLSelectElement | null} */ (document.getElementById("quality"));
const share = location.pathname.split("/").pop();
const options = new URLSearchParams(location.search);

film.muted = options.get("muted") === "1"; // without sound a frame may begin by itself
film.loop = options.get("loop") === "1";

/** Where the film was and whether it ran, as the person wants it, not as a broken element says. */
const wanted = {
  position: Number(options.get("t")) || 0,
  playing: options.get("autoplay") === "1",
};
/** When the film's address stops being renewed by the worker, in this machine's milliseconds. */
let staleAt = Date.now() + Number(film.dataset.lasts) * 1000;
/** The film's other qualities, if there are any. @type {import("./qualities.js").Hls | null} */
let hls = film.dataset.hls ? { url: film.dataset.hls, heights: heightsOf(film) } : null;
const size = Number(film.dataset.size);
const posted = film.src;
/** Where the film comes from now. */
let url = choiceOf(posted);
/** Of a film with qualities nothing is fetched before it is played: there may be many on a page. */
let hasBegun = false;
let line = new AbortController();
const failures = new Failures();
const extras = surroundShared({ stage, media: () => film, showStatus });
const waking = new Waking([workerOf(url) ?? ""], showWaking, () => !document.hidden);
let isRecovering = false;
let isReloading = false;
let statusTimer = 0;
let stallTimer = 0;
let pointTimer = 0;

/** @param {string | null} text */
function showStatus(text) {
  clearTimeout(statusTimer);
  if (text === null) {
    statusLine.hidden = true;
    return;
  }
  statusTimer = window.setTimeout(() => {
    statusLine.textContent = text;
    statusLine.hidden = false;
  }, SHOW_AFTER_MS);
}

/**
 * @param {string | null} text
 * @param {boolean} [canPass] whether trying again may help
 */
function showProblem(text, canPass = false) {
  problem.hidden = text === null;
  problemText.textContent = text;
  retry.hidden = !canPass;
}

/** @param {import("./waking.js").Progress | null} progress */
function showWaking(progress) {
  if (progress && (isRecovering || isStarved())) {
    showStatus(`Waking the worker… ${progress.seconds} s`);
  } else {
    calm();
  }
}

/** @param {Partial<typeof wanted>} change */
function want(change) {
  if (!isReloading && !film.error) {
    Object.assign(wanted, change);
  }
}

/** @param {HTMLMediaElement} media */
function heightsOf(media) {
  return (media.dataset.heights ?? "").split(" ").map(Number);
}

/**
 * What is played: the original, or the playlist of the other qualities.
 * @param {string} original
 */
function choiceOf(original) {
  return levelsToPlay(hls)?.url ?? original;
}

function showQualities() {
  if (!menu) {
    return;
  }
  const { videoWidth: width, videoHeight: height } = /** @type {HTMLVideoElement} */ (film);
  menu.hidden = hls === null || !canPlayLevels();
  if (!hls || menu.hidden) {
    return;
  }
  const heights = levelHeights(film) ?? hls.heights;
  const isOriginal = !isPlaylist(url);
  const qualities = { chosen: recallQuality(), heights, size, isOriginal, width, height };
  const options = optionsOf(qualities, formatSize);
  menu.replaceChildren(
    ...options.map(({ value, text, isChosen }) => new Option(text, value, isChosen, isChosen)),
  );
}

/** Before the film is played: its choice of qualities, or its length and first picture. */
function showFirst() {
  url = choiceOf(posted);
  film.preload = isPlaylist(url) ? "none" : "metadata";
  follow();
}

/** The first time that the film is played: only now it matters what is to be loaded. */
async function loadFirst() {
  const isLate = hasBegun;
  hasBegun = true;
  if (!isLate && isPlaylist(url) && !(await load(url))) {
    await recover({ isBlamed: false });
  }
}

/** @param {string} quality */
async function changeQuality(quality) {
  rememberQuality(quality);
  forgiveLevels(hls?.url ?? "");
  if (!hasBegun) {
    showFirst();
    return;
  }
  const isOriginal = quality === ORIGINAL;
  const isThere = isOriginal ? !isPlaylist(url) : isPlaylist(url) && chooseLevel(film, quality);
  if (!isThere) {
    await recover({ isBlamed: false });
  }
  showQualities();
}

/** The levels give nothing more: those of another worker, or the original, take over meanwhile. */
function onLevelsFailed() {
  void recover({ isBlamed: !areLevelsGivenUp(url) });
}

function isStarved() {
  const wants = !film.paused || film.seeking;
  return wants && !film.ended && film.readyState < HTMLMediaElement.HAVE_FUTURE_DATA;
}

function watch() {
  if (isRecovering || !isStarved()) {
    return;
  }
  showStatus("Buffering…");
  clearTimeout(stallTimer);
  const patienceMs = Date.now() < staleAt ? STALL_PATIENCE_MS : STALE_PATIENCE_MS;
  stallTimer = window.setTimeout(() => isStarved() && void recover(), patienceMs);
}

function calm() {
  if (!isRecovering && !isStarved()) {
    clearTimeout(stallTimer);
    showStatus(null);
  }
}

/** Fetch fresh addresses until one plays, or until there is no hope. */
async function recover({ isBlamed = true } = {}) {
  if (isRecovering || extras.isTold) {
    return;
  }
  isRecovering = true;
  if (film.error?.code === MediaError.MEDIA_ERR_DECODE && isPlaylist(url)) {
    giveUpLevels(url);
  }
  clearTimeout(stallTimer);
  line.abort();
  showProblem(null);
  if (film.error || isStarved()) {
    showStatus("Reconnecting…"); // otherwise it plays on from what it holds
  }
  if (isBlamed && Date.now() < staleAt && !areLevelsGivenUp(url)) {
    failures.note(url);
  }
  for (let attempt = 0; ; attempt += 1) {
    const outcome = await tryOnce(attempt);
    if (outcome === null) {
      break;
    }
    if (outcome.trouble && failures.note(url)) {
      continue; // with another worker, at once
    }
    if (outcome.message === NOT_PLAYABLE) {
      void extras.explain(NOT_PLAYABLE, () => void recover());
      break;
    }
    if (!outcome.trouble || attempt >= ATTEMPTS_MAX) {
      showProblem(outcome.message, outcome.trouble !== null);
      break;
    }
    await wait(attempt, outcome.trouble);
  }
  isRecovering = false;
  showStatus(null);
  watch();
}

/**
 * Before the next attempt of a worker that has failed already.
 * @param {number} attempt
 * @param {Trouble} trouble
 */
async function wait(attempt, trouble) {
  const awake = waking.untilAwake(workerOf(url));
  if (awake) {
    await awake;
  } else {
    showStatus(describeTrouble(trouble, navigator.onLine));
    await pause(delayAfter(attempt, trouble.retryAfter));
  }
}

/** Notice when the film's worker is gone, if there are others, before what is held runs out. */
function follow() {
  line.abort();
  line = new AbortController();
  showQualities();
  if (!isPlaylist(url)) {
    watchLine(film, url, () => void recover(), line.signal);
  }
}

/**
 * One attempt: a fresh address, a byte of it (an element does not say why it failed), the film.
 * @param {number} attempt
 * @returns {Promise<{message: string, trouble: Trouble | null} | null>} null when it plays
 */
async function tryOnce(attempt) {
  try {
    const signed = await fetch(`/api/share/${share}/url?${failures.query(attempt)}`);
    if (!signed.ok) {
      return await refusal(signed);
    }
    const { url: fresh, lasts_s: lasts, hls: levels } = await signed.json();
    hls = levels;
    url = choiceOf(fresh);
    const signal = AbortSignal.timeout(LOAD_PATIENCE_MS);
    const byte = await fetch(url, { headers: { Range: "bytes=0-0" }, cache: "no-store", signal });
    if (!byte.ok) {
      const refused = await refusal(byte);
      return !refused.trouble && giveUpPlaylist() ? tryOnce(attempt) : refused;
    }
    await byte.body?.cancel();
    staleAt = Date.now() + lasts * 1000;
    if (!(await load(url))) {
      return giveUpPlaylist() ? tryOnce(attempt) : { message: NOT_PLAYABLE, trouble: null };
    }
    follow();
    return null;
  } catch {
    return { message: UNREACHABLE, trouble: { code: "offline", status: 0, retryAfter: 0 } };
  }
}

/** Whether there is the original still to be tried, because it was the other qualities that failed. */
function giveUpPlaylist() {
  if (!isPlaylist(url)) {
    return false;
  }
  giveUpLevels(url);
  return true;
}

/** @param {Response} answer */
async function refusal(answer) {
  const body = await answer.json().catch(() => null);
  const { code = "unknown", message = UNREACHABLE } = body?.error ?? {};
  const retryAfter = parseRetryAfter(answer.headers.get("Retry-After"));
  const trouble = { code, status: answer.status, retryAfter };
  return { message, trouble: isPassing(answer.status) ? trouble : null };
}

/**
 * Put the film back to where it was.
 * @param {string} url
 * @returns {Promise<boolean>} whether the browser took it
 */
async function load(url) {
  if (film.readyState > 0 && canChangeOver(film) && (await moveTo(url))) {
    return true;
  }
  isReloading = true;
  const isLoaded = await reload(url);
  isReloading = false;
  return isLoaded;
}

/**
 * Another element starts at the new address and takes the place of the one that is there.
 * @param {string} url
 * @returns {Promise<boolean>} whether that was possible
 */
async function moveTo(url) {
  const { playbackRate: speed, volume, muted } = film;
  const wish = {
    speed,
    volume,
    muted,
    get position() {
      return wanted.position;
    },
    get playing() {
      return wanted.playing;
    },
  };
  const { signal } = new AbortController();
  const twin = await changeOver(film, url, wish, signal, () => listening.abort());
  if (twin) {
    film = twin;
    listen();
  }
  return twin !== null;
}

/**
 * @param {string} url
 * @returns {Promise<boolean>} whether the browser took it
 */
async function reload(url) {
  const { position, playing } = wanted;
  const speed = film.playbackRate;
  setSource(film, url, position);
  if (!(await hasMetadata())) {
    return false;
  }
  film.playbackRate = speed;
  film.currentTime = position;
  if (playing) {
    play();
  }
  return true;
}

/** @returns {Promise<boolean>} */
function hasMetadata() {
  const done = new AbortController();
  /** @type {Promise<boolean>} */
  const outcome = new Promise((resolve) => {
    film.addEventListener("loadedmetadata", () => resolve(true), { signal: done.signal });
    for (const name of ["error", LEVELS_FAILED]) {
      film.addEventListener(name, () => resolve(false), { signal: done.signal });
    }
    setTimeout(() => resolve(false), LOAD_PATIENCE_MS);
  });
  return outcome.finally(() => done.abort());
}

/** Play, if the person wants it and the browser can. */
async function begin() {
  const playAnyway = () => {
    wanted.playing = true;
    start();
  };
  if (await extras.mayPlay(playAnyway)) {
    start();
  }
}

function start() {
  if (film.error) {
    void recover();
  } else if (wanted.playing) {
    play();
  }
}

/** A frame may be forbidden to play with sound unasked. Then the film waits for a click. */
function play() {
  film.play().catch(() => want({ playing: false }));
}

/** @param {number} milliseconds */
function pause(milliseconds) {
  return new Promise((resolve) => {
    setTimeout(resolve, milliseconds);
    window.addEventListener("online", resolve, { once: true });
  });
}

/** @param {number} seconds */
function skip(seconds) {
  film.currentTime = Math.min(Math.max(0, film.currentTime + seconds), film.duration || 0);
}

/** @param {number} change */
function turnUp(change) {
  film.volume = Math.min(Math.max(0, film.volume + change), 1);
  film.muted = false;
}

function toggleFullScreen() {
  // A site may embed the player without allowing this; the film then stays where it is.
  const done = document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen();
  done.catch(() => showStatus(null));
}

/** Someone points at the film: the title is shown for as long as browsers show their controls. */
function pointAt() {
  stage.classList.add("is-pointed-at");
  clearTimeout(pointTimer);
  pointTimer = window.setTimeout(() => stage.classList.remove("is-pointed-at"), POINTED_AT_MS);
}

/** @type {Record<string, () => void>} */
const KEYS = {
  " ": () => (film.paused ? play() : film.pause()),
  k: () => (film.paused ? play() : film.pause()),
  j: () => skip(-LONG_SKIP_S),
  l: () => skip(LONG_SKIP_S),
  ArrowLeft: () => skip(-SKIP_S),
  ArrowRight: () => skip(SKIP_S),
  ArrowUp: () => turnUp(VOLUME_STEP),
  ArrowDown: () => turnUp(-VOLUME_STEP),
  Home: () => skip(-film.currentTime),
  m: () => {
    film.muted = !film.muted;
  },
  c: () => extras.toggleSubtitles(),
  f: toggleFullScreen,
};

/**
 * Whether a key is for the film. A button keeps its own, and so does a page that is longer than its
 * window, as long as the person is not at the film: those keys move the page.
 * @param {KeyboardEvent} event
 */
function isForFilm(event) {
  const target = /** @type {Element} */ (event.target);
  const isMovingPage = SCROLL_KEYS.includes(event.key) && !stage.contains(target) && canScroll();
  const isWithOther = event.ctrlKey || event.altKey || event.metaKey;
  return !isWithOther && !target.closest("a, button, select") && !isMovingPage;
}

function canScroll() {
  const { scrollHeight, clientHeight } = document.documentElement;
  return scrollHeight > clientHeight;
}

/** @param {KeyboardEvent} event */
function onKey(event) {
  const action = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (action && isForFilm(event)) {
    // Before the element sees it, whose own controls know some of these keys too.
    event.preventDefault();
    event.stopPropagation();
    action();
  }
}

/** Listen to the element that plays now. */
function listen() {
  listening = new AbortController();
  const { signal } = listening;
  /** @type {(names: string[], action: () => void) => void} */
  const on = (names, action) => {
    for (const name of names) {
      film.addEventListener(name, action, { signal });
    }
  };
  on(["play"], () => want({ playing: true }));
  on(["play"], () => void loadFirst());
  on(["pause"], () => want({ playing: false }));
  on(["timeupdate", "seeking"], () => want({ position: film.currentTime }));
  on(["play", "pause", "ended"], () => stage.classList.toggle("is-playing", !film.paused));
  on(["waiting", "stalled", "seeking", "progress"], watch);
  on(["playing", "canplay", "seeked", "timeupdate", "pause"], calm);
  on(["error"], () => void recover());
  on([LEVELS_FAILED], onLevelsFailed);
  on(["loadedmetadata", "resize"], showQualities);
}

listen();
announceSong();
stage.addEventListener("pointermove", pointAt);
stage.addEventListener("pointerdown", pointAt);
menu?.addEventListener("change", () => void changeQuality(menu.value));
retry.addEventListener("click", () => void recover());
document.addEventListener("keydown", onKey, { capture: true });

waking.start();
document.addEventListener("visibilitychange", () => !document.hidden && waking.start());
keepAwake(() => (film.paused || film.ended ? null : workerOf(url)), new AbortController().signal);
showFirst();
if (wanted.position > 0 && !film.error) {
  film.currentTime = wanted.position;
}
void begin();
