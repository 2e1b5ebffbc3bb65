// Music: one song after the other, while somebody looks at it in the viewer or goes on looking around.
// It has its own element, so that leaving the viewer does not stop it; what is seen of it are its
// faces: the bar at the foot of the page and the sheet in the viewer.

import { ApiError, listFiles, signUrl } from "./api.js";
import { formatTitle } from "./format.js";
import { fileId } from "./listing.js";
import { Player } from "./player.js";
import { recallPosition, rememberPosition } from "./positions.js";
import { Queue } from "./queue.js";

/** @typedef {import("./api.js").Filter} Filter */
/** @typedef {import("./api.js").MediaFile} MediaFile */
/** @typedef {Omit<import("./player.js").PlayerView, "untilAwake" | "showQualities">} SongView */
/** @typedef {"off" | "all" | "one"} Repeat */

const LONG_S = 15 * 60; // a talk or a book is resumed, a song begins anew
const REMEMBER_EVERY_S = 5;
const BEGUN_S = 3; // then "previous" is the beginning of this song
const THUMBNAIL = { sizes: "320x320", type: "image/jpeg" };
const REPEATS = /** @type {const} */ ({ off: "all", all: "one", one: "off" });

/**
 * What music needs of the page around it.
 * @typedef {object} Surroundings
 * @property {() => Filter} filter of the list that is shown
 * @property {(id: string) => void} goTo show another song in the viewer in the place of this one
 * @property {import("./waking.js").Waking} waking
 */

/** @type {SongView} */
const UNSEEN = {
  showStatus: () => {},
  showProblem: () => {},
  adopt: () => {},
  countBytes: () => {},
};

export class Music {
  #around;
  /** The element that plays; Safari lets one go on in the background that was begun by a click. */
  #media;
  /** @type {Player | null} */
  #player = null;
  /** @type {MediaFile | null} */
  #file = null;
  /** @type {Queue | null} */
  #queue = null;
  #queueKey = "";
  #view = UNSEEN;
  #listening = new AbortController();
  /** @type {(() => void)[]} */
  #faces = [];
  /** @type {Repeat} */
  #repeat = "off";
  #rememberedAt = 0;
  #resumesAt = 0;
  /** What is waited for, and what is wrong. @type {{status: string | null, problem: ApiError | null}} */
  #said = { status: null, problem: null };

  /**
   * @param {HTMLAudioElement} media
   * @param {Surroundings} around
   */
  constructor(media, around) {
    this.#media = /** @type {HTMLMediaElement} */ (media);
    this.#around = around;
    addEventListener("pagehide", () => this.#remember());
  }

  get file() {
    return this.#file;
  }

  get player() {
    return this.#player;
  }

  get media() {
    return this.#media;
  }

  get repeat() {
    return this.#repeat;
  }

  get isShuffled() {
    return this.#queue?.isShuffled ?? false;
  }

  /** Where the song that plays went on, rather than to begin anew; in seconds. */
  get resumesAt() {
    return this.#resumesAt;
  }

  /** In words, for the bar; null while all is well. */
  get said() {
    return this.#said.problem?.message ?? this.#said.status;
  }

  /** @param {number} most */
  following(most) {
    return (this.#file && this.#queue?.after(fileId(this.#file), most)) ?? [];
  }

  /** @param {string} id */
  fileOf(id) {
    const isThis = this.#file && fileId(this.#file) === id;
    return (isThis ? this.#file : this.#queue?.fileOf(id)) ?? undefined;
  }

  /**
   * Call this whenever there is something else to show.
   * @param {() => void} face
   */
  onChange(face) {
    this.#faces.push(face);
  }

  #change() {
    for (const face of this.#faces) {
      face();
    }
  }

  // In the viewer ------------------------------------------------------------------------------

  /**
   * The viewer shows this song: play it, unless it does so already.
   * @param {MediaFile} file
   * @param {SongView} view
   * @returns {Player}
   */
  open(file, view) {
    this.#view = view;
    if (this.#player && this.#file && fileId(this.#file) === fileId(file)) {
      view.showStatus(this.#said.status);
      view.showProblem(this.#said.problem);
      return this.#player;
    }
    const player = this.#begin(file);
    void this.#line(file);
    return player;
  }

  /** The viewer shows something else now; the song plays on. */
  leave() {
    this.#view = UNSEEN;
  }

  // Playing ------------------------------------------------------------------------------------

  /**
   * @param {MediaFile} file
   * @returns {Player}
   */
  #begin(file) {
    const { playbackRate: speed, volume, muted } = this.#media;
    this.#end();
    this.#file = file;
    this.#said = { status: null, problem: null };
    const id = fileId(file);
    /** @type {import("./player.js").PlayerView} */
    const view = {
      // One that was closed a moment ago may still have a last word.
      showStatus: (status) => this.#player === player && this.#say({ status }),
      showProblem: (problem) => this.#player === player && this.#say({ problem }),
      adopt: (twin) => this.#adopt(twin),
      countBytes: (bytes) => this.#view.countBytes(bytes),
      showQualities: () => {}, // of a song there are none
      untilAwake: (worker) => this.#around.waking.untilAwake(worker),
    };
    const player = new Player(this.#media, (failed) => signUrl(id, failed), view, id);
    this.#player = player;
    this.#listen();
    this.#resumesAt = (file.duration ?? 0) >= LONG_S ? recallPosition(id) : 0;
    void player.open({ position: this.#resumesAt, speed, volume, muted });
    this.#announce();
    this.#change();
    return player;
  }

  #end() {
    this.#remember();
    this.#listening.abort();
    this.#player?.close();
    this.#player = null;
  }

  /** Stop, and be gone. */
  close() {
    this.#end();
    this.#file = null;
    this.#queue = null;
    this.#queueKey = "";
    if (navigator.mediaSession) {
      navigator.mediaSession.metadata = null;
    }
    this.#change();
  }

  pause() {
    this.#media.pause();
  }

  toggle() {
    if (this.#said.problem) {
      void this.#player?.retry();
    } else if (this.#media.paused) {
      this.#media.play().catch(() => this.#change()); // the player begins when it can
    } else {
      this.#media.pause();
    }
  }

  /** @param {number} seconds */
  seek(seconds) {
    this.#media.currentTime = seconds;
    this.#change();
  }

  /** @param {number} volume from 0 to 1 */
  setVolume(volume) {
    this.#media.muted = false;
    this.#media.volume = volume;
  }

  cycleRepeat() {
    this.#repeat = REPEATS[this.#repeat];
    this.#change();
  }

  async toggleShuffle() {
    if (this.#queue && this.#file) {
      await this.#inQueue(this.#queue.shuffle(!this.#queue.isShuffled, fileId(this.#file)));
    }
  }

  /**
   * To the next song or the one before; after a few seconds the one before is this one.
   * @param {1 | -1} step
   * @param {{isAsked?: boolean}} [how] not asked: the song has ended
   */
  async step(step, { isAsked = true } = {}) {
    const file = this.#file;
    if (!file || !this.#queue) {
      return;
    }
    if (step < 0 && this.#media.currentTime > BEGUN_S) {
      this.seek(0);
      return;
    }
    const isRound = this.#repeat === "all";
    const goal = await this.#inQueue(this.#queue.neighbour(fileId(file), step, isRound));
    if (this.#file !== file) {
      return; // somebody was faster
    }
    if (goal) {
      this.goTo(goal);
    } else if (isAsked && step < 0) {
      this.seek(0);
    }
  }

  /**
   * Another song of the queue, in the viewer too if that shows the one that plays.
   * @param {MediaFile} file
   */
  goTo(file) {
    if (fileId(file) === (this.#file && fileId(this.#file))) {
      this.#restart();
      return;
    }
    this.#begin(file);
    if (this.#view !== UNSEEN) {
      this.#around.goTo(fileId(file));
    }
  }

  #restart() {
    this.#media.currentTime = 0;
    this.#media.play().catch(() => this.#change());
  }

  /**
   * The songs of its channel that this one stands among in the list.
   * @param {MediaFile} file
   */
  async #line(file) {
    const filter = { ...this.#around.filter(), kind: "audio", channel: String(file.chat_id) };
    const key = JSON.stringify(filter);
    if (key === this.#queueKey && this.#queue?.fileOf(fileId(file))) {
      return;
    }
    const queue = new Queue(file, (cursor) => listFiles(filter, cursor));
    this.#queue = queue;
    this.#queueKey = key;
    await this.#inQueue(queue.begin());
  }

  /**
   * What the queue answers; nothing while the gallery cannot be asked.
   * @template T
   * @param {Promise<T>} answer
   * @returns {Promise<T | null>}
   */
  async #inQueue(answer) {
    try {
      return await answer;
    } catch (error) {
      if (!(error instanceof ApiError)) {
        throw error;
      }
      return null; // the song plays on; the next step asks again
    } finally {
      this.#change();
    }
  }

  // What the element says -------------------------------------------------------------------------

  /** @param {HTMLMediaElement} twin another element has taken the place of the one that played */
  #adopt(twin) {
    this.#media = twin;
    twin.controls = false;
    this.#listen();
    this.#view.adopt(twin);
  }

  #listen() {
    this.#listening.abort();
    this.#listening = new AbortController();
    const { signal } = this.#listening;
    /** @type {(names: string[], action: () => void) => void} */
    const on = (names, action) => {
      for (const name of names) {
        this.#media.addEventListener(name, action, { signal });
      }
    };
    on(["play", "pause", "durationchange", "volumechange", "emptied"], () => this.#change());
    on(["play"], () => this.#announce());
    on(["pause", "ended"], () => this.#remember());
    on(["timeupdate", "seeked"], () => this.#onTime());
    on(["ended"], () => this.#onEnd());
  }

  #onTime() {
    if (Math.abs(this.#media.currentTime - this.#rememberedAt) >= REMEMBER_EVERY_S) {
      this.#remember();
    }
    this.#change();
  }

  #onEnd() {
    if (this.#repeat === "one") {
      this.#restart();
    } else {
      void this.step(1, { isAsked: false });
    }
  }

  #remember() {
    const { currentTime: at, duration, readyState } = this.#media;
    if (this.#file && readyState > 0 && duration >= LONG_S) {
      this.#rememberedAt = at;
      rememberPosition(fileId(this.#file), { at, duration });
    }
  }

  /** @param {{status?: string | null, problem?: ApiError | null}} news */
  #say(news) {
    Object.assign(this.#said, news);
    this.#view.showStatus(this.#said.status);
    this.#view.showProblem(this.#said.problem);
    this.#change();
  }

  /** Cover, names and keys for the lock screen, headphones and media keys. */
  #announce() {
    const session = navigator.mediaSession;
    const file = this.#file;
    if (!session || !file) {
      return;
    }
    const artwork = file.thumbnail ? [{ src: file.thumbnail, ...THUMBNAIL }] : [];
    const artist = file.performer ?? "";
    session.metadata = new MediaMetadata({ title: formatTitle(file), artist, artwork });
    session.setActionHandler("nexttrack", () => void this.step(1));
    session.setActionHandler("previoustrack", () => void this.step(-1));
  }
}
