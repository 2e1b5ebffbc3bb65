// Puts a URL into a media element, whatever is behind it: a file as it is; the qualities of a film
// (HLS) natively in Apple's browsers, by hls.js in all others, which is fetched when it is needed.

import {
  AUTO,
  isPlaylist,
  levelsOfOneKind,
  levelUrl,
  nearestHeight,
  ORIGINAL,
  recallQuality,
} from "./qualities.js";
import { isPassing } from "./trouble.js";
import { hasOthers } from "./workers.js";

/** An element says so, and plays on from what it holds, when its levels give nothing more. */
export const LEVELS_FAILED = "levelsfailed";
/** An element says so of every segment; `detail` is its bytes. */
export const SEGMENT_LOADED = "segmentloaded";

const HLS_JS = "./vendor/hls.light.min.mjs"; // a name, so that no checker of types looks into it
const AHEAD_S = 20; // then a change of the line is seen that soon, and a worker's loss is not
const BEHIND_S = 30;
// How much of the line a level may need, to stay at it and to go up to it: the defaults of hls.js.
const STAY_SHARE = 0.95;
const GO_UP_SHARE = 0.7;
// hls.js weighs what it sees by the time that it took. On a good line these small segments take next
// to none, and by its own measure (3 and 9 s) a line that is good again would go unnoticed for a minute.
const HALF_LIFE_FAST_S = 2;
const HALF_LIFE_SLOW_S = 4;
const FIRST_BYTE_MS = 25_000; // a worker holds a player for 20 s before it hangs up
const FIRST_BYTE_WITH_OTHERS_MS = 8_000;
const SEGMENT_MS = 120_000;
const SEGMENT_WITH_OTHERS_MS = 12_000; // one that falls silent in the middle is left in time
const RETRIES = 3;
const RETRY_FIRST_MS = 400;
const RETRY_LONGEST_MS = 4_000;

/**
 * What makes of a playlist something that an element plays.
 * @typedef {object} Attachment
 * @property {(quality: string) => boolean} choose whether it could without another start
 * @property {number[] | null} heights null as long as they are not known
 * @property {() => void} close
 */

/** @type {WeakMap<HTMLMediaElement, Attachment>} */
const attachments = new WeakMap();
/** Films whose qualities this browser cannot play, as `filmOf` names them. @type {Set<string>} */
const givenUp = new Set();
/** What the line carried last: the next film need not find that out. */
let lineBitsPerSecond = NaN;

/** Whether this browser plays HLS by any means. */
export function canPlayLevels() {
  return playsNatively() || "MediaSource" in window || "ManagedMediaSource" in window;
}

/**
 * The qualities, if they are what is to be played; null for the original.
 * @template {import("./qualities.js").Hls} T
 * @param {T | null} hls
 * @returns {T | null}
 */
export function levelsToPlay(hls) {
  const isWanted = recallQuality() !== ORIGINAL && canPlayLevels();
  return hls && isWanted && !areLevelsGivenUp(hls.url) ? hls : null;
}

/**
 * Whether the browser's own player is used: Apple's, which knows AirPlay. Chromium has one too by
 * now, which does not understand byte ranges and cannot be told a height.
 */
function playsNatively() {
  const isApples = "webkitShowPlaybackTargetPicker" in HTMLMediaElement.prototype;
  const canPlay = document.createElement("video").canPlayType("application/vnd.apple.mpegurl");
  return canPlay !== "" && (isApples || !("MediaSource" in window));
}

/** @param {string} url */
function filmOf(url) {
  return /\/hls\/(-?\d+\/\d+)\//.exec(url)?.[1] ?? url;
}

/**
 * Note that the qualities of this film are of no use here, so that its original is played.
 * @param {string} url
 */
export function giveUpLevels(url) {
  givenUp.add(filmOf(url));
}

/** @param {string} url */
export function areLevelsGivenUp(url) {
  return isPlaylist(url) && givenUp.has(filmOf(url));
}

/**
 * Somebody asks for them: another try.
 * @param {string} url
 */
export function forgiveLevels(url) {
  givenUp.delete(filmOf(url));
}

/**
 * Have an element play this URL, in the quality that was chosen last.
 * @param {HTMLMediaElement} media
 * @param {string} url
 * @param {number} [position] where it will begin: nothing before that is fetched
 */
export function setSource(media, url, position = 0) {
  if (!isPlaylist(url)) {
    letGo(media);
    media.src = url;
    media.load();
    return;
  }
  dropSource(media); // what it played until now, and may be fetching still
  if (playsNatively()) {
    attachments.set(media, new NativeLevels(media, url));
  } else {
    attachments.set(media, new HlsJsLevels(media, url, position));
  }
}

/**
 * Stop, and let go of the connection: without `load` the browser goes on fetching.
 * @param {HTMLMediaElement} media
 */
export function dropSource(media) {
  letGo(media);
  media.removeAttribute("src");
  media.load();
}

/** @param {HTMLMediaElement} media */
function letGo(media) {
  attachments.get(media)?.close();
  attachments.delete(media);
}

/**
 * Go on in another quality from here.
 * @param {HTMLMediaElement} media
 * @param {string} quality AUTO or a height
 * @returns {boolean} whether that is possible without another start
 */
export function chooseLevel(media, quality) {
  return attachments.get(media)?.choose(quality) ?? false;
}

/**
 * The heights there are to choose from, once that is known.
 * @param {HTMLMediaElement} media
 */
export function levelHeights(media) {
  return attachments.get(media)?.heights ?? null;
}

/** @implements {Attachment} */
class NativeLevels {
  heights = null;
  #closing = new AbortController();

  /**
   * @param {HTMLMediaElement} media
   * @param {string} url
   */
  constructor(media, url) {
    const quality = recallQuality();
    if (quality === AUTO) {
      media.src = url;
      media.load();
    } else {
      void this.#playOne(media, url, quality);
    }
  }

  /**
   * The browser is given no other quality than this one, since it cannot be told which to take.
   * @param {HTMLMediaElement} media
   * @param {string} url
   * @param {string} quality
   */
  async #playOne(media, url, quality) {
    const { signal } = this.#closing;
    try {
      const answer = await fetch(url, { cache: "no-store", signal });
      const level = answer.ok ? levelUrl(await answer.text(), answer.url, quality) : null;
      media.src = level ?? url; // if there is none the element says why
      media.load();
    } catch {
      if (!signal.aborted) {
        media.dispatchEvent(new Event(LEVELS_FAILED));
      }
    }
  }

  choose() {
    return false;
  }

  close() {
    this.#closing.abort();
  }
}

/** @implements {Attachment} */
class HlsJsLevels {
  #media;
  #url;
  /** An instance of hls.js. @type {any} */
  #hls = null;
  #isOver = false;
  #closing = new AbortController();

  /**
   * @param {HTMLMediaElement} media
   * @param {string} url
   * @param {number} position
   */
  constructor(media, url, position) {
    this.#media = media;
    this.#url = url;
    void this.#begin(position);
  }

  /** @param {number} position */
  async #begin(position) {
    let Hls;
    try {
      Hls = await loadHlsJs();
    } catch {
      this.#fail(); // the gallery is away just now
      return;
    }
    if (this.#isOver) {
      return;
    }
    const hls = new Hls(configFor(this.#url));
    this.#hls = hls;
    hls.on(Hls.Events.MANIFEST_PARSED, () => {
      keepOneKind(hls);
      this.choose(recallQuality());
      hls.startLoad(position);
    });
    hls.on(Hls.Events.ERROR, (/** @type {string} */ _name, /** @type {any} */ error) =>
      this.#onError(error),
    );
    hls.on(Hls.Events.FRAG_LOADED, (/** @type {string} */ _name, /** @type {any} */ { frag }) => {
      lineBitsPerSecond = hls.bandwidthEstimate;
      this.#media.dispatchEvent(new CustomEvent(SEGMENT_LOADED, { detail: frag.stats.loaded }));
    });
    const { signal } = this.#closing;
    this.#media.addEventListener("ratechange", () => this.#allowForSpeed(), { signal });
    this.#allowForSpeed();
    hls.loadSource(this.#url);
    hls.attachMedia(this.#media);
  }

  /** At double speed a film needs twice the line, which hls.js does not think of. */
  #allowForSpeed() {
    const speed = Math.max(1, this.#media.playbackRate);
    this.#hls.config.abrBandWidthFactor = STAY_SHARE / speed;
    this.#hls.config.abrBandWidthUpFactor = GO_UP_SHARE / speed;
  }

  get heights() {
    const levels = /** @type {{height: number}[]} */ (this.#hls?.levels ?? []);
    const heights = [...new Set(levels.map(({ height }) => height))];
    return heights.length > 0 ? heights.sort((one, other) => other - one) : null;
  }

  /** @param {string} quality */
  choose(quality) {
    const hls = this.#hls;
    const { heights } = this;
    if (!hls || !heights) {
      return true; // it is asked what was chosen when the playlist has come
    }
    if (quality === AUTO) {
      hls.loadLevel = -1;
      return true;
    }
    const height = nearestHeight(heights, quality);
    const index = hls.levels.findIndex((/** @type {any} */ level) => level.height === height);
    if (this.#media.readyState === 0) {
      hls.loadLevel = index;
    } else {
      hls.nextLevel = index; // what lies ahead in another quality is thrown away
    }
    return true;
  }

  /**
   * With other workers to go to the first failure is enough. Alone, hls.js tries again for a while.
   * @param {{fatal: boolean, type: string, response?: {code?: number}}} error
   */
  #onError({ fatal, type, response }) {
    const status = response?.code ?? 0;
    const isLine = type === "networkError" && (status === 401 || isPassing(status));
    if (!fatal && !(isLine && hasOthers(this.#url))) {
      return;
    }
    if (!isLine) {
      giveUpLevels(this.#url);
    }
    this.#fail();
  }

  #fail() {
    if (!this.#isOver) {
      this.#isOver = true;
      this.#hls?.stopLoad();
      this.#media.dispatchEvent(new Event(LEVELS_FAILED));
    }
  }

  close() {
    this.#isOver = true;
    this.#closing.abort();
    this.#hls?.destroy();
  }
}

/** @returns {Promise<any>} the class of hls.js */
async function loadHlsJs() {
  return (await import(HLS_JS)).default;
}

/** @param {any} hls */
function keepOneKind(hls) {
  const kept = levelsOfOneKind([...hls.levels]);
  for (let index = hls.levels.length - 1; index >= 0; index -= 1) {
    if (!kept.includes(hls.levels[index])) {
      hls.removeLevel(index);
    }
  }
}

/** @param {string} url */
function configFor(url) {
  const isAlone = !hasOthers(url);
  /** @type {(config: {maxNumRetry: number}, count: number, isLate: boolean, answer?: {code?: number}) => boolean} */
  const shouldRetry = ({ maxNumRetry }, count, _isLate, answer) =>
    count < maxNumRetry && isPassing(answer?.code ?? 0);
  const retry = {
    maxNumRetry: isAlone ? RETRIES : 0,
    retryDelayMs: RETRY_FIRST_MS,
    maxRetryDelayMs: RETRY_LONGEST_MS,
    backoff: "exponential",
    shouldRetry,
  };
  const policy = {
    default: {
      maxTimeToFirstByteMs: isAlone ? FIRST_BYTE_MS : FIRST_BYTE_WITH_OTHERS_MS,
      maxLoadTimeMs: isAlone ? SEGMENT_MS : SEGMENT_WITH_OTHERS_MS,
      timeoutRetry: retry,
      errorRetry: retry,
    },
  };
  return {
    // Its worker would be a blob:, which our pages do not run; these segments need no work anyway.
    enableWorker: false,
    autoStartLoad: false,
    startLevel: -1, // by what the line carried last, else a small one
    testBandwidth: false,
    capLevelToPlayerSize: true,
    maxBufferLength: AHEAD_S,
    maxMaxBufferLength: AHEAD_S,
    backBufferLength: BEHIND_S,
    abrEwmaFastVoD: HALF_LIFE_FAST_S,
    abrEwmaSlowVoD: HALF_LIFE_SLOW_S,
    ...(lineBitsPerSecond > 0 ? { abrEwmaDefaultEstimate: lineBitsPerSecond } : {}),
    manifestLoadPolicy: policy,
    playlistLoadPolicy: policy,
    fragLoadPolicy: policy,
  };
}
