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
import { ended, firstOf, pause } from "./waits.js";
import { Failures, hasOthers, workerOf } from "./workers.js";

/** @typedef {import("./change-over.js").Wish} Wish */
/** @typedef {import("./trouble.js").Trouble} Trouble */

const SHOW_AFTER_MS = 300; // shorter waits are not worth a word
const ATTEMPTS_MAX = 100; // with the delays of trouble.js between six and seven minutes
const LOAD_PATIENCE_MS = 30_000; // Telegram can ask for that long in the middle of a film
const OTHERS_PATIENCE_MS = 8_000; // and less while there are workers that were not tried
const STALL_PATIENCE_MS = 15_000; // Chromium mends a cut connection by itself in a second or two
const GUARDED_PATIENCE_MS = 40_000; // the service worker mends what it can before that
const STALE_PATIENCE_MS = 500; // Chromium asks an address that answers 401 for half a minute
const RENEW_BEFORE_S = 60; // before the end of a token, or a quarter of its life if that is less

/**
 * What the viewer shows: a word while it works, a sentence when it has given up.
 * @typedef {object} PlayerView
 * @property {(text: string | null) => void} showStatus
 * @property {(problem: ApiError | null) => void} showProblem
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
  #mayBeGuarded;
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
  /** Nothing is to be loaded before somebody plays it. */
  #isResting = false;
  #line = new AbortController();
  /** What was signed last. @type {SignedUrl | null} */
  #signed = null;
  // In this machine's milliseconds: when that was, and when the token in the URL that plays ends.
  #signedAt = 0;
  #staleAt = 0;
  #isChoiceOpen = false; // somebody chose a quality while another URL was on its way
  /** How the bytes come, as the backend says. */
  via = "";

  /**
   * @param {HTMLMediaElement} media
   * @param {(query: string) => Promise<SignedUrl>} sign
   * @param {PlayerView} view
   * @param {string} [guarded] the file as `fileId` makes it, where the service worker may see what
   *   the element asks for: that is by CORS, by whoever is signed in
   */
  constructor(media, sign, view, guarded = "") {
    this.#media = media;
    this.#sign = sign;
    this.#view = view;
    this.#mayBeGuarded = guarded !== "";
    if (this.#mayBeGuarded) {
      listenToGuard(
        guarded,
        {
          onTrouble: (trouble) => this.#onTrouble(trouble),
          onBytes: (bytes) => this.#view.countBytes(bytes),
        },
        this.#closing.signal,
      );
    }
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
    this.#listen();
    await this.#recover("Loading…", { reloadAtOnce: true });
  }

  /**
   * Go on with what the element loads already, or even plays. Of a film with qualities nothing is
   * fetched before somebody plays it: there may be many on a page.
   * @param {SignedUrl} signed a moment ago; the element has its URL
   * @param {Partial<Wish>} wish
   */
  takeOver(signed, wish) {
    const media = this.#media;
    const { paused, currentTime, playbackRate: speed, volume, muted } = media;
    const position = wish.position || currentTime;
    Object.assign(this.#wish, { playing: !paused, speed, volume, muted }, wish, { position });
    this.#hasShown = media.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA;
    this.#isResting = true;
    this.#listen();
    this.#rest(signed);
    if (media.error) {
      void this.#onError();
      return;
    }
    if (position !== currentTime) {
      media.currentTime = position;
    }
    if (!paused) {
      void this.#begin();
      this.#onWaiting();
    } else if (this.#wish.playing) {
      this.#play();
    }
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
    if (this.#isResting && this.#signed) {
      this.#rest(this.#signed);
      return;
    }
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
   * Wait for somebody to play it: of a film in one quality its length and first picture are shown.
   * @param {SignedUrl} signed
   */
  #rest(signed) {
    const source = this.#choiceOf(signed);
    this.#media.preload = isPlaylist(source.url) ? "none" : "metadata";
    this.#renewInTime(source);
    this.#follow(source.url);
  }

  /** Somebody plays it for the first time: only now it matters what is to be loaded. */
  async #begin() {
    const isFirst = this.#isResting;
    this.#isResting = false;
    if (isFirst && isPlaylist(this.#url)) {
      const how = { reloadAtOnce: true, isBlamed: false, signed: this.#signed };
      await this.#recover("Loading…", how);
    }
  }

  /** A page may be forbidden to play with sound unasked. Then the film waits for a click. */
  #play() {
    this.#media.play().catch(() => this.#want({ playing: false }));
  }

  /**
   * Which of the two that were signed is played.
   * @param {SignedUrl} signed
   * @returns {Source}
   */
  #choiceOf(signed) {
    if (signed !== this.#signed) {
      this.#signed = signed;
      this.#signedAt = Date.now();
    }
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

  get #isGuarded() {
    return this.#mayBeGuarded && isGuarded();
  }

  /** Whether the service worker mends what comes from the URL that plays: of playlists it does not. */
  get #isMended() {
    return this.#isGuarded && !isPlaylist(this.#url);
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
    on(["play"], () => void this.#begin());
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
    this.#stallTimer = window.setTimeout(() => {
      if (this.#isWaiting) {
        void this.#recover("Reconnecting…", { reloadAtOnce: false });
      }
    }, this.#stallPatience);
  }

  get #stallPatience() {
    if (this.#isMended) {
      return GUARDED_PATIENCE_MS;
    }
    return Date.now() < this.#staleAt ? STALL_PATIENCE_MS : STALE_PATIENCE_MS;
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
      this.#view.showProblem(new ApiError("not_decoded", text, 415));
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
    this.#staleAt = this.#signedAt + lifetime * 1000;
    const beforeMs = Math.min(RENEW_BEFORE_S, lifetime / 4) * 1000;
    const delayMs = this.#staleAt - beforeMs - Date.now();
    this.#renewTimer = window.setTimeout(() => void this.#renew(), delayMs);
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
   * @param {{reloadAtOnce: boolean, isBlamed?: boolean, signed?: SignedUrl | null}} how whether to
   *   load unasked: asking first tells why it fails; whether it is the worker that failed; and what
   *   to try first
   */
  async #recover(status, { reloadAtOnce, isBlamed = true, signed = null }) {
    if (this.#isRecovering || this.#isRenewing) {
      return;
    }
    this.#isRecovering = true;
    this.#isResting = false;
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
        const isFirst = attempt === 0;
        const known = isFirst ? signed : null;
        const problem = await this.#try(attempt, reloadAtOnce && isFirst, known);
        if (!problem || signal.aborted) {
          break;
        }
        const mayBeItsOwn = problem.isPassing || problem.code === "channel_missing";
        if (mayBeItsOwn && failures.note(this.#url)) {
          continue; // with another worker, at once
        }
        if (!problem.isPassing || attempt >= ATTEMPTS_MAX) {
          this.#view.showProblem(problem);
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
    if (!this.#isGuarded && !isPlaylist(url)) {
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
   * @param {SignedUrl | null} signed already
   * @returns {Promise<ApiError | null>}
   */
  async #try(attempt, reloadAtOnce, signed) {
    try {
      const source = this.#choiceOf(signed ?? (await this.#sign(failures.query(attempt))));
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
        return this.#try(attempt, reloadAtOnce, signed); // the original
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
        return this.#try(attempt, reloadAtOnce, signed); // the original
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
      this.#play();
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
