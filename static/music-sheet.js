// Music's face in the viewer: the cover, what can be done, and what comes next.

import { fillCover } from "./cover.js";
import { formatDuration, formatTitle } from "./format.js";
import { fileId } from "./listing.js";
import { showPlaying } from "./music-bar.js";
import { clone } from "./page.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

const FOLLOWING_MAX = 60;
const REPEAT_LABELS = { off: "Repeat", all: "Repeat: all songs", one: "Repeat: this song" };

export class MusicSheet {
  #music;
  #sheet = clone("music-sheet-template");
  #parts = {
    cover: this.#part(".music-art", HTMLElement),
    title: this.#part(".music-name", HTMLElement),
    performer: this.#part(".music-by", HTMLElement),
    seek: this.#part(".music-seek", HTMLInputElement),
    at: this.#part(".music-at", HTMLElement),
    length: this.#part(".music-length", HTMLElement),
    toggle: this.#part(".music-play", HTMLButtonElement),
    shuffle: this.#part(".music-shuffle", HTMLButtonElement),
    repeat: this.#part(".music-repeat", HTMLButtonElement),
    mute: this.#part(".music-mute", HTMLButtonElement),
    volume: this.#part(".music-volume", HTMLInputElement),
    queue: this.#part(".music-queue", HTMLElement),
    list: this.#part(".music-list", HTMLElement),
  };
  #shown = "";
  #listed = "";
  #isSeeking = false;
  /** Taken from the page while it had the focus; it gets that back. @type {HTMLElement | null} */
  #focused = null;

  /** @param {import("./music.js").Music} music */
  constructor(music) {
    this.#music = music;
    music.onChange(() => this.#draw());
    this.#listen();
  }

  /** @param {HTMLElement} stage */
  show(stage) {
    this.#draw();
    stage.append(this.#sheet);
    this.#focused?.focus({ preventScroll: true });
    this.#focused = null;
  }

  hide() {
    const { activeElement } = document;
    const hasFocus = activeElement instanceof HTMLElement && this.#sheet.contains(activeElement);
    this.#focused = hasFocus ? activeElement : null;
    this.#sheet.remove();
  }

  #listen() {
    const music = this.#music;
    const { seek, volume, toggle, shuffle, repeat, mute } = this.#parts;
    toggle.addEventListener("click", () => music.toggle());
    shuffle.addEventListener("click", () => void music.toggleShuffle());
    repeat.addEventListener("click", () => music.cycleRepeat());
    mute.addEventListener("click", () => {
      music.media.muted = !music.media.muted;
    });
    this.#part(".music-back", HTMLButtonElement).addEventListener("click", () => {
      void music.step(-1);
    });
    this.#part(".music-forward", HTMLButtonElement).addEventListener("click", () => {
      void music.step(1);
    });
    seek.addEventListener("input", () => {
      this.#isSeeking = true;
      this.#drawTime(Number(seek.value));
    });
    seek.addEventListener("change", () => {
      this.#isSeeking = false;
      music.seek(Number(seek.value));
    });
    volume.addEventListener("input", () => music.setVolume(Number(volume.value)));
    for (const slider of [seek, volume]) {
      // A finger that drags a slider does not swipe to the next song.
      slider.addEventListener("pointerdown", (event) => event.stopPropagation());
    }
    this.#parts.list.addEventListener("click", (event) => {
      const { id } = /** @type {HTMLElement} */ (event.target).closest("button")?.dataset ?? {};
      const file = id && music.fileOf(id);
      if (file) {
        music.goTo(file);
      }
    });
  }

  #draw() {
    const { file, media, isShuffled, repeat } = this.#music;
    if (!file) {
      return;
    }
    const parts = this.#parts;
    if (this.#shown !== fileId(file)) {
      this.#shown = fileId(file);
      this.#isSeeking = false;
      fillCover(parts.cover, file);
      parts.title.textContent = formatTitle(file);
      parts.performer.textContent = file.performer ?? "";
    }
    showPlaying(parts.toggle, media);
    parts.shuffle.setAttribute("aria-pressed", String(isShuffled));
    parts.repeat.setAttribute("aria-pressed", String(repeat !== "off"));
    parts.repeat.classList.toggle("is-one", repeat === "one");
    parts.repeat.setAttribute("aria-label", REPEAT_LABELS[repeat]);
    parts.repeat.title = REPEAT_LABELS[repeat];
    parts.mute.setAttribute("aria-pressed", String(media.muted));
    parts.volume.value = String(media.muted ? 0 : media.volume);
    parts.volume.style.setProperty("--seen", parts.volume.value);
    if (!this.#isSeeking) {
      parts.seek.max = String(media.duration || file.duration || 0);
      parts.seek.value = String(media.currentTime);
      this.#drawTime(media.currentTime);
    }
    this.#drawQueue();
  }

  /** @param {number} at */
  #drawTime(at) {
    const { seek, at: reached, length } = this.#parts;
    const duration = Number(seek.max);
    reached.textContent = formatDuration(at) || "0:00";
    length.textContent = formatDuration(duration);
    seek.style.setProperty("--seen", String(duration ? at / duration : 0));
    seek.setAttribute("aria-valuetext", `${reached.textContent} of ${length.textContent}`);
  }

  #drawQueue() {
    const following = this.#music.following(FOLLOWING_MAX);
    const key = following.map(fileId).join(" ");
    if (key !== this.#listed) {
      this.#listed = key;
      this.#parts.queue.hidden = following.length === 0;
      this.#parts.list.replaceChildren(...following.map(entryOf));
    }
  }

  /**
   * @template {HTMLElement} T
   * @param {string} selector
   * @param {new () => T} type
   * @returns {T}
   */
  #part(selector, type) {
    const found = this.#sheet.querySelector(selector);
    if (!(found instanceof type)) {
      throw new TypeError(`gallery.html has no ${selector} in the music sheet`);
    }
    return found;
  }
}

/** @param {MediaFile} file */
function entryOf(file) {
  const entry = clone("music-entry-template");
  const button = /** @type {HTMLElement} */ (entry.querySelector("button"));
  button.dataset.id = fileId(file);
  const [cover, title, performer, length] = [
    ".music-entry-cover",
    ".music-entry-title",
    ".music-entry-by",
    ".music-entry-length",
  ].map((selector) => /** @type {HTMLElement} */ (entry.querySelector(selector)));
  fillCover(cover, file);
  title.textContent = formatTitle(file);
  performer.textContent = file.performer ?? "";
  length.textContent = formatDuration(file.duration);
  return entry;
}
