// The page of a share link, in a frame or for people: its player, the keys, and what is seen of both.
// `?t=90&autoplay=1&muted=1&loop=1` says how it begins.

import { signShared } from "./api.js";
import { formatSize } from "./format.js";
import { Player } from "./player.js";
import { optionsOf } from "./qualities.js";
import { surroundShared } from "./share-extras.js";
import { announceSong } from "./song-session.js";
import { Waking } from "./waking.js";
import { workerOf } from "./workers.js";

/** @typedef {import("./api.js").ApiError} ApiError */

const POINTED_AT_MS = 3_000;
const SKIP_S = 5;
const LONG_SKIP_S = 10;
const VOLUME_STEP = 0.1;
const SCROLL_KEYS = [" ", "ArrowUp", "ArrowDown", "Home"];

const stage = /** @type {HTMLElement} */ (document.getElementById("stage"));
const posted = /** @type {HTMLMediaElement} */ (document.getElementById("film"));
const statusLine = /** @type {HTMLElement} */ (document.getElementById("status"));
const problemBox = /** @type {HTMLElement} */ (document.getElementById("problem"));
const problemText = /** @type {HTMLElement} */ (document.getElementById("problem-text"));
const retry = /** @type {HTMLElement} */ (document.getElementById("retry"));
/** Songs have none. */
const menu = /** @type {HTMLSelectElement | null} */ (document.getElementById("quality"));
const share = location.pathname.split("/").pop() ?? "";
const options = new URLSearchParams(location.search);
const signed = signedHere();

/** @type {Player} */
const player = new Player(posted, (failed) => signShared(share, failed), {
  showStatus,
  showProblem,
  adopt: () => {}, // whoever needs the element asks for the one that plays now
  countBytes: () => {},
  showQualities,
  untilAwake: (worker) => waking.untilAwake(worker),
});
const media = () => player.media;
const extras = surroundShared({ share, stage, media, showStatus });
const waking = new Waking([workerOf(signed.url) ?? ""], drawStatus, () => !document.hidden);
/** @type {string | null} */
let waitsFor = null;
let pointTimer = 0;

/**
 * What the gallery signed when it made this page.
 * @returns {import("./player.js").SignedUrl}
 */
function signedHere() {
  const { hls, heights = "", lasts, size } = posted.dataset;
  const lifetime = Number(lasts);
  return {
    url: posted.src,
    via: "worker",
    size: Number(size),
    lifetime,
    hls: hls ? { url: hls, heights: heights.split(" ").map(Number), lifetime } : null,
  };
}

/** Have the player take over, which may play unasked unless it is known that this browser cannot. */
async function begin() {
  const isWished = options.get("autoplay") === "1";
  const wish = { position: Number(options.get("t")) || 0, ...(isWished && { playing: true }) };
  const mayPlay = await extras.mayPlay(() => player.takeOver(signed, { ...wish, playing: true }));
  if (mayPlay) {
    player.takeOver(signed, wish);
  }
}

// What is seen -----------------------------------------------------------------------------------

/** @param {string | null} text */
function showStatus(text) {
  waitsFor = text;
  drawStatus();
}

/** A worker that sleeps is what a waiting film waits for. */
function drawStatus() {
  const { progress } = waking;
  statusLine.textContent = progress ? `Waking the worker… ${progress.seconds} s` : waitsFor;
  statusLine.hidden = waitsFor === null;
}

/** @param {ApiError | null} problem */
function showProblem(problem) {
  const isForm = problem?.isForm ?? false;
  problemBox.hidden = problem === null || isForm;
  problemText.textContent = problem?.message ?? null;
  retry.hidden = !problem?.isPassing;
  if (problem && isForm) {
    void extras.explain(problem.message, () => void player.retry());
  } else {
    extras.clear();
  }
}

/** @param {import("./qualities.js").Qualities | null} qualities */
function showQualities(qualities) {
  if (menu) {
    menu.hidden = qualities === null;
    const choices = qualities ? optionsOf(qualities, formatSize) : [];
    menu.replaceChildren(
      ...choices.map(({ value, text, isChosen }) => new Option(text, value, isChosen, isChosen)),
    );
  }
}

/** Someone points at the film: the title is shown for as long as browsers show their controls. */
function pointAt() {
  stage.classList.add("is-pointed-at");
  clearTimeout(pointTimer);
  pointTimer = window.setTimeout(() => stage.classList.remove("is-pointed-at"), POINTED_AT_MS);
}

// Keys -------------------------------------------------------------------------------------------

function togglePlaying() {
  if (media().paused) {
    // When it cannot, its URL is just being changed; the player, which heard this, plays it then.
    media()
      .play()
      .catch(() => {});
  } else {
    media().pause();
  }
}

/** @param {number} seconds */
function skip(seconds) {
  const { currentTime, duration } = media();
  media().currentTime = Math.min(Math.max(0, currentTime + seconds), duration || 0);
}

/** @param {number} change */
function turnUp(change) {
  media().volume = Math.min(Math.max(0, media().volume + change), 1);
  media().muted = false;
}

function toggleMuted() {
  media().muted = !media().muted;
}

function toggleFullScreen() {
  const done = document.fullscreenElement ? document.exitFullscreen() : stage.requestFullscreen();
  // A site may embed the player without allowing this; the film then stays where it is.
  done.catch(() => {});
}

/** @type {Record<string, () => void>} */
const KEYS = {
  " ": togglePlaying,
  k: togglePlaying,
  j: () => skip(-LONG_SKIP_S),
  l: () => skip(LONG_SKIP_S),
  ArrowLeft: () => skip(-SKIP_S),
  ArrowRight: () => skip(SKIP_S),
  ArrowUp: () => turnUp(VOLUME_STEP),
  ArrowDown: () => turnUp(-VOLUME_STEP),
  Home: () => skip(-Infinity),
  m: toggleMuted,
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

// ------------------------------------------------------------------------------------------------

posted.muted = options.get("muted") === "1"; // without sound a frame may begin by itself
posted.loop = options.get("loop") === "1";
for (const name of ["play", "pause", "ended"]) {
  // Events of a film do not bubble, but they are seen on their way down to it.
  const look = () => stage.classList.toggle("is-playing", !media().paused);
  stage.addEventListener(name, look, { capture: true });
}
stage.addEventListener("pointermove", pointAt);
stage.addEventListener("pointerdown", pointAt);
menu?.addEventListener("change", () => void player.choose(menu.value));
retry.addEventListener("click", () => void player.retry());
document.addEventListener("keydown", onKey, { capture: true });
document.addEventListener("visibilitychange", () => !document.hidden && waking.start());

announceSong();
waking.start();
void begin();
