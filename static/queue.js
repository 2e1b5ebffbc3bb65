// The queue: which song comes after which. The songs are those of one channel in the order of the
// list that they were opened from, an album in its own order; they are fetched as they are needed.

import { besides, groupsOf } from "./albums.js";
import { fileId, withoutKnown } from "./listing.js";

/** @typedef {import("./api.js").FilePage} FilePage */
/** @typedef {import("./api.js").MediaFile} MediaFile */

const SONGS_MAX = 3_000; // then a channel's older songs are left out
const AHEAD_FILES = 12; // an album and a little: one that is not whole yet would be in disorder

export class Queue {
  /** As far as they were fetched, in the order of the list. @type {MediaFile[]} */
  #listed = [];
  /** In the order in which they are played. @type {MediaFile[]} */
  #played;
  /** @type {string | null} */
  #cursor = null;
  #hasBegun = false;
  /** @type {Promise<void> | null} */
  #loading = null;
  #isShuffled = false;
  #first;
  #fetchPage;
  #random;

  /**
   * @param {MediaFile} first the song that was chosen
   * @param {(cursor: string | null) => Promise<FilePage>} fetchPage
   * @param {() => number} [random] from 0 up to but without 1
   */
  constructor(first, fetchPage, random = Math.random) {
    this.#first = first;
    this.#played = [first];
    this.#fetchPage = fetchPage;
    this.#random = random;
  }

  get isShuffled() {
    return this.#isShuffled;
  }

  /** @param {string} id */
  fileOf(id) {
    return this.#played.find((file) => fileId(file) === id) ?? null;
  }

  /**
   * What is known to follow this song.
   * @param {string} id
   * @param {number} most
   */
  after(id, most) {
    const index = this.#played.findIndex((file) => fileId(file) === id);
    return this.#played.slice(index + 1, index + 1 + most);
  }

  /** Fetch until the song that was chosen has its place, and those that follow are known. */
  async begin() {
    const id = fileId(this.#first);
    await this.#loadUntil(() => this.#isFarFromEnd(this.#listed, id));
  }

  /**
   * @param {string} id
   * @param {1 | -1} step
   * @param {boolean} isRound whether the first follows the last
   * @returns {Promise<MediaFile | null>}
   */
  async neighbour(id, step, isRound) {
    await this.#loadUntil(() => this.#isFarFromEnd(this.#played, id));
    const goal = besides(this.#played, id, step);
    if (goal || !isRound) {
      return goal;
    }
    if (step < 0) {
      await this.#loadUntil(() => false);
    }
    return this.#played.at(step > 0 ? 0 : -1) ?? null;
  }

  /**
   * In any order, this song first; or back in the order of the list.
   * @param {boolean} isOn
   * @param {string} id
   */
  async shuffle(isOn, id) {
    this.#isShuffled = isOn;
    if (isOn) {
      await this.#loadUntil(() => !this.#isShuffled);
    }
    if (this.#isShuffled === isOn) {
      this.#arrange(id);
    }
  }

  /** @param {string} id */
  #arrange(id) {
    const listed = groupsOf(this.#listed).flat();
    if (!listed.some((file) => fileId(file) === fileId(this.#first))) {
      listed.unshift(this.#first); // not of this list, or not yet
    }
    this.#played = this.#isShuffled ? shuffled(listed, id, this.#random) : listed;
  }

  /**
   * @param {MediaFile[]} files
   * @param {string} id
   */
  #isFarFromEnd(files, id) {
    const index = files.findIndex((file) => fileId(file) === id);
    return index >= 0 && index + AHEAD_FILES < files.length;
  }

  /**
   * @param {() => boolean} isEnough
   * @returns {Promise<void>}
   */
  async #loadUntil(isEnough) {
    while (!isEnough() && this.#hasMore) {
      this.#loading ??= this.#loadPage().finally(() => {
        this.#loading = null;
      });
      await this.#loading;
    }
  }

  get #hasMore() {
    const isOpen = !this.#hasBegun || this.#cursor !== null;
    return isOpen && this.#listed.length < SONGS_MAX;
  }

  async #loadPage() {
    const page = await this.#fetchPage(this.#cursor);
    this.#hasBegun = true;
    this.#cursor = page.next;
    this.#listed.push(...withoutKnown(this.#listed, page.files));
    if (!this.#isShuffled) {
      this.#arrange("");
    }
  }
}

/**
 * After Fisher and Yates, with one of them put first.
 * @param {MediaFile[]} files
 * @param {string} id
 * @param {() => number} random
 */
function shuffled(files, id, random) {
  const order = [...files];
  for (let last = order.length - 1; last > 0; last -= 1) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  const first = order.findIndex((file) => fileId(file) === id);
  return first < 0 ? order : [order[first], ...order.slice(0, first), ...order.slice(first + 1)];
}
