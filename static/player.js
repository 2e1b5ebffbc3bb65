// Keeps one film or piece of music playing: fetches a URL, a fresh one in time where no service
// worker does that, and goes on where it was after whatever happened.

import { ApiError, errorFrom } from "./api.js";
import { canChangeOver, changeOver } from "./change-over.js";
import { isGuarded, listenToGuard } from "./guard.js";
import { keepAwake } from "./keep-awake.js";
import {
  areLevelsGivenUp,
  canPlayLevels,
  chooseLevel,
  dropSource,
  forgiveLevels,
  giveUpLevels,
  LEVELS_FAILED,
  levelHeights,
  levelsToPlay,
  SEGMENT_LOADED,
  setSource,
} from "./levels.js";
import { watchLine } from "./line-watch.js";
import { isPlaylist, ORIGINAL, recallQuality, rememberQuality } from "./qualities.js";
import { delayAfter, describeTrouble } from "./trouble.js";
import { Failures, hasOthers, workerOf } from "./workers.js";

/** @typedef {import("./change-over.js").Wish} Wish */
/** @typedef {import("./trouble.js").Trouble} Trouble */

const SHOW_AFTER_MS = 300; // shorter waits are not worth a word
const ATTEMPTS_MAX = 100; // with the delays of trouble.js between six and seven minutes
const LOAD_PATIENCE_MS = 30_000; // Telegram can ask for that long in the middle of a film
const OTHERS_PATIENCE_MS = 8_000; // and less while there are workers that were not tried
const STALL_PATIENCE_MS = 15_000; // Chromium mends a cut connection by itself in a second or two
const GUARDED_PATIENCE_MS = 40_000; // the service worker mends what it can before that
const RENEW_BEFORE_S = 60; // before the end of a token, or a quarter of its life if that is less

/**
 * What the viewer shows: a word while it works, a sentence when it has given up.
 * @typedef {object} PlayerView
 * @property {(text: string | null) => void} showStatus
 * @property {(text: string | null, code?: string) => void} showProblem
 * @property {(media: HTMLMediaElement) => void} adopt another element has taken the old one's place
 * @property {(bytes: number) => void} countBytes
 * @property {(qualities: import("./qualities.js").Qualities | null) => void} showQualities null when
 *   there is nothing to choose from
 * @property {(worker: string | null) => Promise<void> | null} untilAwake null unless the worker sleeps
 */

/** @typedef {{url: string, via: string, lifetime: number}} Source */
/** @typedef {import("./qualities.js").Hls & {lifetime: number}} SignedHls */
/** @typedef {Source & {size: number, hls: SignedHls | null}} SignedUrl */

/** What the workers did to any film of this page. */
const failures = new Failures();

export class Player {
  #media;
  #sign;
  #view;
  /** Where the film was and whether it ran, as the person wants it, not as a broken element says. */
  /** @type {Wish} */
  #wish = { position: 0, playing: false, speed: 1, volume: 1, muted: false };
  #isRecovering = false;
  #isReloading = false;
  #isRenewing = false;
  #hasShown = false;
  #closing = new AbortController();
  #listening = new AbortController();
  /** @type {Trouble | null} */
  #trouble = null;
  #statusTimer = 0;
  #stallTimer = 0;
  #renewTimer = 0;
  #url = "";
  #staleAt = 0; // when the token in it ends, in this machine's milliseconds
  #line = new AbortController();
  /** What was signed last. @type {SignedUrl | null} */
  #signed = null;
  #isChoiceOpen = false; // somebody chose a quality while another URL was on its way
  /** How the bytes come, as the backend says. */
  via = "";

  /**
   * @param {HTMLMediaElement} media
   * @param {string} file as `fileId` makes it
   * @param {(query: string) => Promise<SignedUrl>} sign
   * @param {PlayerView} view
   */
  constructor(media, file, sign, view) {
    this.#media = media;
    this.#sign = sign;
    this.#view = view;
    this.#listen();
    listenToGuard(
      file,
      {
        onTrouble: (trouble) => this.#onTrouble(trouble),
        onBytes: (bytes) => this.#view.countBytes(bytes),
      },
      this.#closing.signal,
    );
    keepAwake(() => (this.#isPlaying ? workerOf(this.#url) : null), this.#closing.signal);
  }

  get #isPlaying() {
    return !this.#media.paused && !this.#media.ended;
  }

  /** The element that plays now. */
  get media() {
    return this.#media;
  }

  /**
   * Load the film and play it, if the browser lets a page do so without a click.
   * @param {Partial<Wish>} [wish]
   */
  async open(wish = {}) {
    Object.assign(this.#wish, { playing: true }, wish);
    await this.#recover("Loading…", { reloadAtOnce: true });
  }

  /** Begin again after giving up. */
  async retry() {
    await this.#recover("Reconnecting…", { reloadAtOnce: false });
  }

  /**
   * Go on in another quality, here and in the films that are opened later.
   * @param {string} quality as `qualities.js` names it
   */
  async choose(quality) {
    rememberQuality(quality);
    if (this.#isRecovering || this.#isRenewing) {
      this.#isChoiceOpen = true;
      return;
    }
    const { hls } = this.#signed ?? { hls: null };
    forgiveLevels(hls?.url ?? "");
    const wantsLevels = quality !== ORIGINAL && hls !== null;
    const isThere = wantsLevels
      ? isPlaylist(this.#url) && chooseLevel(this.#media, quality)
      : !isPlaylist(this.#url);
    if (!isThere && !(await this.#moveOn())) {
      await this.#recover("Loading…", { reloadAtOnce: true, isBlamed: false });
    }
    this.#tellQualities();
  }

  /** Stop, and let go of the connection. */
  close() {
    this.#closing.abort();
    this.#listening.abort();
    this.#line.abort();
    this.#showStatus(null);
    clearTimeout(this.#stallTimer);
    clearTimeout(this.#renewTimer);
    dropSource(this.#media);
  }

  /**
   * Which of the two that were signed is played.
   * @param {SignedUrl} signed
   * @returns {Source}
   */
  #choiceOf(signed) {
    this.#signed = signed;
    const levels = levelsToPlay(signed.hls);
    return levels ? { ...levels, via: "worker" } : signed;
  }

  #tellQualities() {
    const { hls, size } = this.#signed ?? { hls: null, size: 0 };
    const media = this.#media;
    if (!hls || !canPlayLevels() || !(media instanceof HTMLVideoElement)) {
      this.#view.showQualities(null);
      return;
    }
    this.#view.showQualities({
      chosen: recallQuality(),
      heights: levelHeights(media) ?? hls.heights,
      size,
      isOriginal: !isPlaylist(this.#url),
      width: media.videoWidth,
      height: media.videoHeight,
    });
  }

  /** Whether the service worker mends what comes from the URL that plays: of playlists it does not. */
  get #isMended() {
    return isGuarded() && !isPlaylist(this.#url);
  }

  #listen() {
    this.#listening.abort();
    this.#listening = new AbortController();
    const media = this.#media;
    const options = { signal: this.#listening.signal };
    /** @type {(names: string[], action: () => void) => void} */
    const on = (names, action) => {
      for (const name of names) {
        media.addEventListener(name, action, options);
      }
    };
    on(["play"], () => this.#want({ playing: true }));
    on(["pause"], () => this.#want({ playing: false }));
    on(["timeupdate", "seeking"], () => this.#want({ position: media.currentTime }));
    on(["ratechange"], () => this.#want({ speed: media.playbackRate }));
    on(["volumechange"], () => this.#want({ volume: media.volume, muted: media.muted }));
    on(["loadeddata"], () => {
      this.#hasShown = true;
    });
    on(["waiting", "stalled", "seeking"], () => this.#onWaiting());
    on(["playing", "canplay", "seeked", "timeupdate", "pause"], () => this.#onMoving());
    on(["progress"], () => this.#watchForStall());
    on(["error"], () => void this.#onError());
    on([LEVELS_FAILED], () => void this.#onLevelsFailed());
    on(["loadedmetadata", "resize"], () => this.#tellQualities());
    media.addEventListener(
      SEGMENT_LOADED,
      (event) => this.#view.countBytes(/** @type {CustomEvent<number>} */ (event).detail),
      options,
    );
  }

  /**
   * Remember what the person wants, except while the element is being reloaded and reports nonsense.
   * One whose place another is to take plays on from what it holds.
   * @param {Partial<Wish>} change
   */
  #want(change) {
    const isEmpty = this.#media.readyState < HTMLMediaElement.HAVE_CURRENT_DATA;
    const isLost = this.#isReloading || (this.#isRecovering && isEmpty);
    if (!isLost && !this.#media.error) {
      Object.assign(this.#wish, change);
    }
  }

  get #isStarved() {
    const media = this.#media;
    return media.readyState < HTMLMediaElement.HAVE_FUTURE_DATA && !media.ended;
  }

  get #isWaiting() {
    return this.#isStarved && (!this.#media.paused || this.#media.seeking);
  }

  #onWaiting() {
    if (!this.#isRecovering && this.#isWaiting) {
      const trouble = this.#trouble;
      this.#showStatus(trouble ? describeTrouble(trouble, navigator.onLine) : "Buffering…");
      this.#watchForStall();
    }
  }

  #onMoving() {
    if (!this.#isRecovering && (!this.#isStarved || this.#media.paused) && !this.#media.seeking) {
      this.#showStatus(null);
      clearTimeout(this.#stallTimer);
    }
  }

  /**
   * The service worker says why nothing comes; shown if the film has run out of what it had.
   * @param {Trouble | null} trouble
   */
  #onTrouble(trouble) {
    this.#trouble = trouble;
    this.#onWaiting();
  }

  /** Bytes that stop coming without an error get a fresh URL too, in time. */
  #watchForStall() {
    clearTimeout(this.#stallTimer);
    const patience = this.#isMended ? GUARDED_PATIENCE_MS : STALL_PATIENCE_MS;
    this.#stallTimer = window.setTimeout(() => {
      if (this.#isWaiting) {
        void this.#recover("Reconnecting…", { reloadAtOnce: false });
      }
    }, patience);
  }

  async #onError() {
    if (this.#isRecovering || !this.#media.error) {
      return;
    }
    const isDamaged = this.#media.error.code === MediaError.MEDIA_ERR_DECODE;
    if (isDamaged && isPlaylist(this.#url)) {
      giveUpLevels(this.#url);
      await this.#recover("Loading…", { reloadAtOnce: true, isBlamed: false });
      return;
    }
    if (isDamaged) {
      const text = "This file is damaged here, or in a form this browser cannot play.";
      this.#view.showProblem(text, "not_decoded");
      return;
    }
    await this.#recover("Reconnecting…", { reloadAtOnce: false });
  }

  /** The levels give nothing more: those of another worker, or the original, take over meanwhile. */
  async #onLevelsFailed() {
    if (!this.#isRecovering && !this.#isRenewing) {
      await this.#leave({ isBlamed: !areLevelsGivenUp(this.#url) });
    }
  }

  /** @param {Source} source */
  #renewInTime({ lifetime }) {
    clearTimeout(this.#renewTimer);
    this.#staleAt = Date.now() + lifetime * 1000;
    const seconds = lifetime - Math.min(RENEW_BEFORE_S, lifetime / 4);
    this.#renewTimer = window.setTimeout(() => void this.#renew(), seconds * 1000);
  }

  /**
   * Move to a fresh URL while the film runs on, where no service worker renews unseen.
   * @returns {Promise<boolean>} whether it runs from there
   */
  async #renew() {
    const isBusy = this.#isRecovering || this.#isRenewing;
    if (isBusy || this.#isMended) {
      return isBusy; // the guard mends it, or `error` leads to `#recover`
    }
    return this.#moveOn();
  }

  /**
   * To a fresh URL of what is to be played, unseen.
   * @returns {Promise<boolean>} whether it runs from there
   */
  async #moveOn() {
    if (!canChangeOver(this.#media) || !this.#hasShown) {
      return false;
    }
    this.#isRenewing = true;
    let hasMoved = false;
    try {
      const source = this.#choiceOf(await this.#sign(failures.query(0)));
      if (!this.#isRecovering && !this.#closing.signal.aborted) {
        hasMoved = await this.#changeOver(source.url);
        if (hasMoved) {
          this.via = source.via;
          this.#follow(source.url);
        }
        this.#renewInTime(source);
      }
    } catch (error) {
      if (!(error instanceof ApiError)) {
        throw error;
      }
      // The gallery does not answer now. The film plays on, and asks again when it has to.
    } finally {
      this.#isRenewing = false;
      this.#settleChoice();
    }
    await this.#onError(); // of the old one, had it failed meanwhile
    return hasMoved;
  }

  /**
   * Fetch URLs until one plays. Here and in `#renew` are the only places that change the URL.
   * @param {string} status
   * @param {{reloadAtOnce: boolean, isBlamed?: boolean}} how whether to load unasked: asking first
   *   tells why it fails; and whether it is the worker that failed
   */
  async #recover(status, { reloadAtOnce, isBlamed = true }) {
    if (this.#isRecovering || this.#isRenewing) {
      return;
    }
    this.#isRecovering = true;
    clearTimeout(this.#stallTimer);
    this.#line.abort();
    this.#view.showProblem(null);
    this.#showStatus(status);
    if (isBlamed && Date.now() < this.#staleAt) {
      failures.note(this.#url); // later it is the token that has run out
    }
    const { signal } = this.#closing;
    try {
      for (let attempt = 0; !signal.aborted; attempt += 1) {
        const problem = await this.#try(attempt, reloadAtOnce && attempt === 0);
        if (!problem || signal.aborted) {
          break;
        }
        const mayBeItsOwn = problem.isPassing || problem.code === "channel_missing";
        if (mayBeItsOwn && failures.note(this.#url)) {
          continue; // with another worker, at once
        }
        if (!problem.isPassing || attempt >= ATTEMPTS_MAX) {
          this.#view.showProblem(problem.message, problem.code);
          break;
        }
        await this.#wait(attempt, problem);
      }
    } finally {
      this.#isRecovering = false;
      this.#isReloading = false;
      this.#showStatus(null);
      this.#settleChoice();
      if (!signal.aborted && this.#wish.playing) {
        this.#onWaiting();
      }
    }
  }

  #settleChoice() {
    if (this.#isChoiceOpen && !this.#closing.signal.aborted) {
      this.#isChoiceOpen = false;
      void this.choose(recallQuality());
    }
  }

  /**
   * Before the next attempt of a worker that has failed already.
   * @param {number} attempt
   * @param {ApiError} problem
   */
  async #wait(attempt, problem) {
    const { signal } = this.#closing;
    this.#showStatus(describeTrouble(problem, navigator.onLine));
    const awake = this.#view.untilAwake(workerOf(this.#url));
    if (awake) {
      await Promise.race([awake, ended(signal)]);
    } else {
      await pause(delayAfter(attempt, problem.retryAfter), signal);
    }
  }

  /**
   * The film comes from this URL from now on.
   * @param {string} url
   */
  #follow(url) {
    this.#url = url;
    this.#line.abort();
    this.#line = new AbortController();
    this.#tellQualities();
    if (!isGuarded() && !isPlaylist(url)) {
      watchLine(this.#media, url, () => void this.#leave(), this.#line.signal);
    }
  }

  /** The worker is gone, and the film still runs from what it holds: to another one meanwhile. */
  async #leave({ isBlamed = true } = {}) {
    if (isBlamed) {
      failures.note(this.#url);
    }
    if (!(await this.#renew())) {
      await this.#recover("Reconnecting…", { reloadAtOnce: true, isBlamed });
    }
  }

  /**
   * One attempt: sign, ask for a byte, load. Returns what went wrong, or null.
   * @param {number} attempt
   * @param {boolean} reloadAtOnce
   * @returns {Promise<ApiError | null>}
   */
  async #try(attempt, reloadAtOnce) {
    try {
      const source = this.#choiceOf(await this.#sign(failures.query(attempt)));
      if (this.#closing.signal.aborted) {
        return null; // the element may be another player's by now
      }
      this.#url = source.url;
      if (!reloadAtOnce) {
        const patience = AbortSignal.timeout(patienceFor(source.url));
        await probe(source.url, AbortSignal.any([this.#closing.signal, patience]));
      }
      const isLoaded = await this.#load(source.url);
      if (this.#closing.signal.aborted) {
        return null;
      }
      if (isLoaded) {
        this.via = source.via;
        this.#renewInTime(source);
        this.#follow(source.url);
        return null;
      }
      const isInVain = !reloadAtOnce || areLevelsGivenUp(source.url);
      if (isPlaylist(source.url) && isInVain) {
        giveUpLevels(source.url);
        return this.#try(attempt, reloadAtOnce); // the original
      }
      if (reloadAtOnce) {
        return new ApiError("not_loaded", "The film cannot be loaded.");
      }
      // The bytes are there, so it is what they are that the browser does not like.
      return new ApiError(
        "not_playable",
        "This browser cannot play this kind of file. Download it, or open it in a player such as VLC.",
        415,
      );
    } catch (error) {
      if (!(error instanceof ApiError)) {
        return new ApiError("offline", "The connection is gone.");
      }
      if (isPlaylist(this.#url) && !error.isPassing && !areLevelsGivenUp(this.#url)) {
        giveUpLevels(this.#url);
        return this.#try(attempt, reloadAtOnce); // the original
      }
      return error;
    }
  }

  /**
   * Put the film back to where it was on this URL.
   * @param {string} url
   * @returns {Promise<boolean>} whether the browser took it
   */
  async #load(url) {
    if (this.#hasShown && canChangeOver(this.#media)) {
      return this.#changeOver(url);
    }
    const media = this.#media;
    const { position, playing, speed, volume, muted } = this.#wish;
    this.#isReloading = true;
    setSource(media, url, position);
    const names = ["loadedmetadata", "error", LEVELS_FAILED];
    const outcome = await firstOf(media, names, patienceFor(url), this.#closing.signal);
    if (outcome !== "loadedmetadata") {
      return outcome === "closed";
    }
    media.playbackRate = speed;
    media.volume = volume;
    media.muted = muted;
    if (position > 0) {
      media.currentTime = position;
    }
    if (playing) {
      // A page may be forbidden to play with sound unasked. Then the film waits for a click.
      media.play().catch(() => this.#want({ playing: false }));
    }
    return true;
  }

  /**
   * Put a twin of the element in its place: the picture stays until the next one is there.
   * @param {string} url
   * @returns {Promise<boolean>} whether that was possible
   */
  async #changeOver(url) {
    const old = this.#media;
    const twin = await changeOver(old, url, this.#wish, this.#closing.signal, () =>
      this.#listening.abort(),
    );
    if (!twin) {
      return this.#closing.signal.aborted;
    }
    this.#media = twin;
    this.#listen();
    this.#view.adopt(twin);
    return true;
  }

  /** @param {string | null} text */
  #showStatus(text) {
    clearTimeout(this.#statusTimer);
    if (text === null) {
      this.#view.showStatus(null);
      return;
    }
    this.#statusTimer = window.setTimeout(() => this.#view.showStatus(text), SHOW_AFTER_MS);
  }
}

/**
 * How long this URL may take for its first answer, in milliseconds.
 * @param {string} url
 */
function patienceFor(url) {
  return hasOthers(url) && !failures.has(url) ? OTHERS_PATIENCE_MS : LOAD_PATIENCE_MS;
}

/**
 * Ask for one byte, because a media element does not tell why it failed and the worker does.
 * @param {string} url
 * @param {AbortSignal} signal
 */
async function probe(url, signal) {
  const response = await fetch(url, { headers: { Range: "bytes=0-0" }, cache: "no-store", signal });
  if (!response.ok) {
    const error = await errorFrom(response);
    // A refused token is replaced by the next attempt; a missing file stays missing.
    throw error.status === 401 ? new ApiError(error.code, error.message) : error;
  }
  await response.body?.cancel();
}

/**
 * Wait, but no longer than until the network is back or the page is closed.
 * @param {number} milliseconds
 * @param {AbortSignal} signal
 */
function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    const end = () => {
      clearTimeout(timer);
      resolve(undefined);
    };
    window.addEventListener("online", end, { once: true, signal });
    signal.addEventListener("abort", end, { once: true });
  });
}

/**
 * @param {AbortSignal} signal
 * @returns {Promise<void>} for its end
 */
function ended(signal) {
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
function firstOf(media, names, patienceMs, closing) {
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
