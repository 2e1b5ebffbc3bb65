// Music's face in the viewer: the cover, what can be done, and what comes next.

import { fillCover } from "./cover.js";
import { formatDuration, formatTitle } from "./format.js";
import { fileId } from "./listing.js";
import { showPlaying } from "./music-bar.js";
import { clone, part } from "./page.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

const FOLLOWING_MAX = 60;
const REPEAT_LABELS = { off: "Repeat", all: "Repeat: all songs", one: "Repeat: this song" };

export class MusicSheet {
  #music;
  #sheet = clone("music-sheet-template");
  #parts = {
    cover: part(this.#sheet, ".music-art", HTMLElement),
    title: part(this.#sheet, ".music-name", HTMLElement),
    performer: part(this.#sheet, ".music-by", HTMLElement),
    seek: part(this.#sheet, ".music-seek", HTMLInputElement),
    at: part(this.#sheet, ".music-at", HTMLElement),
    length: part(this.#sheet, ".music-length", HTMLElement),
    toggle: part(this.#sheet, ".music-play", HTMLButtonElement),
    shuffle: part(this.#sheet, ".music-shuffle", HTMLButtonElement),
    repeat: part(this.#sheet, ".music-repeat", HTMLButtonElement),
    mute: part(this.#sheet, ".music-mute", HTMLButtonElement),
    volume: part(this.#sheet, ".music-volume", HTMLInputElement),
    queue: part(this.#sheet, ".music-queue", HTMLElement),
    list: part(this.#sheet, ".music-list", HTMLElement),
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
    stage.append(this.#sheet);
    this.#draw();
    this.#focused?.focus({ preventScroll: true });
    this.#focused = null;
  }

  hide() {
    const { activeElement } = document;
    const hasFocus = activeElement instanceof HTMLElement && this.#sheet.contains(activeElement);
    this.#focused = hasFocus ? activeElement : null;
    this.#isSeeking = false;
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
    part(this.#sheet, ".music-back", HTMLButtonElement).addEventListener("click", () => {
      void music.step(-1);
    });
    part(this.#sheet, ".music-forward", HTMLButtonElement).addEventListener("click", () => {
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
    if (!file || !this.#sheet.isConnected) {
      return; // it is drawn when it is shown
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
}

/** @param {MediaFile} file */
function entryOf(file) {
  const entry = clone("music-entry-template");
  const button = /** @type {HTMLElement} */ (entry.querySelector("button"));
  button.dataset.id = fileId(file);
  fillCover(part(entry, ".music-entry-cover", HTMLElement), file);
  /** @type {(name: string, text: string) => void} */
  const fill = (name, text) => {
    part(entry, `.music-entry-${name}`, HTMLElement).textContent = text;
  };
  fill("title", formatTitle(file));
  fill("by", file.performer ?? "");
  fill("length", formatDuration(file.duration));
  return entry;
}
