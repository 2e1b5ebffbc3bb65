// Whether this browser can play a film, found out before it is played where there is doubt, and the
// ways out where it cannot: other players, a playlist, the download, or to try it all the same.

import { findFault, findObstacle, isDoubtful } from "./codecs.js";
import { Failures } from "./workers.js";

/** @typedef {import("./codecs.js").Head} Head */

const PATIENCE_MS = 8_000; // a film that may well play does not wait any longer
const SHOW_AFTER_MS = 300; // shorter waits are not worth a word
const SILENT_S = 1; // played without a sound that was decoded
const FRAMES_PER_SECOND = 24;
const BITS_PER_SECOND = 4_000_000;

/**
 * What is known of the file.
 * @typedef {object} Film
 * @property {string} name
 * @property {string} kind
 * @property {string} mime_type
 * @property {number | null} width
 * @property {number | null} height
 * @property {number[]} [qualities] heights of those that Telegram has made
 */

/**
 * A way to have the film elsewhere: a link, or something to do.
 * @typedef {object} Way
 * @property {string} name
 * @property {string} [href]
 * @property {(event: Event) => void} [act]
 */

/**
 * @typedef {object} Surroundings
 * @property {HTMLElement} stage holds the film; another element may take the film's place in it
 * @property {() => HTMLMediaElement | null} media the one that plays now
 * @property {Film} film
 * @property {(failed: string) => Promise<string | null>} sign gives a fresh URL of what the head tells
 * @property {() => Way[]} ways
 * @property {(head: Head) => void} onHead
 * @property {(text: string | null) => void} showStatus
 * @property {AbortSignal} signal the end of it
 */

export class Playable {
  #around;
  #failures = new Failures();
  /** @type {Promise<Head | null> | null} */
  #head = null;
  #isSettled = false;
  #box = document.createElement("section");
  /** What to do when somebody wants to play all the same. */
  #playAnyway = () => {};

  /** @param {Surroundings} around */
  constructor(around) {
    this.#around = around;
    this.#box.className = "ways-out";
    this.#watch();
    around.signal.addEventListener("abort", () => this.clear(), { once: true });
  }

  /**
   * Before the film is played: wait until it is known whether it can be, if there is doubt.
   * @param {() => void} play what "Play anyway" does
   * @returns {Promise<boolean>} false: it is told why not, and not to be played unasked
   */
  async mayPlay(play) {
    if (!isDoubtful(this.#around.film, canOpen)) {
      return true;
    }
    const { showStatus } = this.#around;
    const late = setTimeout(() => showStatus("Looking into the file…"), SHOW_AFTER_MS);
    const obstacle = await this.#findObstacle();
    clearTimeout(late);
    if (this.#around.signal.aborted) {
      return false;
    }
    showStatus(null);
    if (obstacle) {
      this.#show(obstacle, "Play anyway", play);
    }
    return obstacle === null;
  }

  /**
   * The film was tried and does not play.
   * @param {string} text what is known of it without a look into the file
   * @param {() => void} retry
   */
  async explain(text, retry) {
    this.#show(text, "Try again", retry);
    const head = await this.#askHead();
    const fault = await findFault(head, this.#around.film, this.#browser);
    if (fault && this.#box.isConnected) {
      this.#show(fault, "Try again", retry);
    }
  }

  /** Take back what was said. */
  clear() {
    this.#box.remove();
  }

  // What is asked ------------------------------------------------------------------------------

  /** @returns {Promise<string | null>} */
  async #findObstacle() {
    const head = await this.#askHead();
    return head && findObstacle(head, this.#around.film, this.#browser);
  }

  /** What the file's head tells; null when nobody can tell now. */
  #askHead() {
    this.#head ??= this.#fetchHead().then((head) => {
      if (head) {
        this.#around.onHead(head);
      } else {
        this.#head = null; // the next one who wants to know asks again
      }
      return head;
    });
    return this.#head;
  }

  /** @returns {Promise<Head | null>} */
  async #fetchHead() {
    let url = "";
    try {
      url = (await this.#around.sign(this.#failures.query(0))) ?? "";
      if (!url) {
        return null;
      }
      const signal = AbortSignal.any([this.#around.signal, AbortSignal.timeout(PATIENCE_MS)]);
      const answer = await fetch(url, { signal });
      if (answer.ok) {
        return await answer.json();
      }
    } catch {
      // Nobody answers. The player, which asks as well, says what is the matter.
    }
    this.#failures.note(url);
    return null;
  }

  /** @type {import("./codecs.js").Browser} */
  get #browser() {
    return { canOpen, canDecode: (codec, kind) => canDecode(codec, kind, this.#around.film) };
  }

  // What is seen while it plays ------------------------------------------------------------------

  /** A film whose picture or sound no decoder takes often plays on without, and without an error. */
  #watch() {
    const { stage, film, signal, media } = this.#around;
    // Events of a film do not bubble, but they are seen on their way down to it.
    const options = { capture: true, signal };
    const onPlay = (/** @type {Event} */ { target }) =>
      target === media() && this.#box.isConnected && this.#playAnyway();
    stage.addEventListener("play", onPlay, options);
    if (film.kind === "video") {
      const look = (/** @type {Event} */ { target }) => this.#look(target);
      stage.addEventListener("loadedmetadata", look, options);
      stage.addEventListener("timeupdate", look, options);
    }
  }

  /** @param {EventTarget | null} target */
  #look(target) {
    const isOurs = target === this.#around.media() && target instanceof HTMLVideoElement;
    if (!isOurs || this.#isSettled || /^blob:|\/hls\//.test(target.currentSrc)) {
      return; // qualities that Telegram made are made for browsers
    }
    const hasNoPicture = target.readyState > 0 && target.videoWidth === 0;
    if (hasNoPicture || isSilent(target)) {
      this.#isSettled = true;
      void this.#tellWhatIsMissing();
    }
  }

  async #tellWhatIsMissing() {
    const obstacle = await this.#findObstacle();
    const media = this.#around.media();
    if (obstacle && media && !this.#around.signal.aborted) {
      media.pause();
      this.#show(obstacle, "Play anyway", () => void media.play());
    }
  }

  /**
   * @param {string} text
   * @param {string} again what it is called to try it all the same
   * @param {() => void} play
   */
  #show(text, again, play) {
    const said = document.createElement("p");
    said.className = "ways-text";
    said.setAttribute("role", "alert");
    said.textContent = text;
    const ways = document.createElement("div");
    ways.className = "ways-list";
    this.#playAnyway = () => {
      this.#isSettled = true; // they know
      this.clear();
      play();
    };
    const entries = this.#around.ways().map((way, index) => entryOf(way, index === 0));
    ways.append(...entries, entryOf({ name: again, act: () => this.#playAnyway() }));
    this.#box.replaceChildren(said, ways);
    this.#around.stage.append(this.#box);
  }
}

/**
 * @param {Way} way
 * @param {boolean} [isFirst]
 */
function entryOf({ name, href, act }, isFirst = false) {
  const entry = document.createElement(href ? "a" : "button");
  entry.className = isFirst ? "button button-primary" : "button";
  entry.textContent = name;
  if (entry instanceof HTMLAnchorElement) {
    entry.href = href ?? "";
    entry.target = "_top"; // a frame may not lead to an app
  } else {
    entry.type = "button";
  }
  if (act) {
    entry.addEventListener("click", act);
  }
  return entry;
}

const probe = document.createElement("video");

/** @param {string} type */
function canOpen(type) {
  return probe.canPlayType(type) !== "";
}

/**
 * Whether the browser knows this codec in any container that it may come in; asked twice, since
 * either answer alone is wrong in some browser.
 * @param {string} codec
 * @param {"video" | "audio"} kind
 * @param {Film} film
 */
async function canDecode(codec, kind, { width, height }) {
  const containers = ["mp4", "webm", "x-matroska", "quicktime"];
  const types = containers.flatMap((each) => [
    `video/${each}; codecs="${codec}"`,
    `${kind}/${each}; codecs="${codec}"`,
  ]);
  if (types.some(canOpen)) {
    return true;
  }
  const contentType = `${kind}/mp4; codecs="${codec}"`;
  const video = {
    contentType,
    width: width || 1920,
    height: height || 1080,
    bitrate: BITS_PER_SECOND,
    framerate: FRAMES_PER_SECOND,
  };
  const wanted = kind === "video" ? { video } : { audio: { contentType } };
  try {
    const info = await navigator.mediaCapabilities.decodingInfo({ type: "file", ...wanted });
    return info.supported;
  } catch {
    return false; // it does not know what is asked, or cannot be asked
  }
}

/**
 * Whether it has played for a while and no sound was decoded; false where the browser does not say.
 * @param {HTMLVideoElement} video
 */
function isSilent(video) {
  const { played, paused } = video;
  const known = /** @type {{webkitAudioDecodedByteCount?: number, mozHasAudio?: boolean}} */ (
    video
  );
  const hasPlayed = played.length > 0 && played.end(0) - played.start(0) >= SILENT_S;
  return (
    hasPlayed && !paused && (known.webkitAudioDecodedByteCount === 0 || known.mozHasAudio === false)
  );
}
