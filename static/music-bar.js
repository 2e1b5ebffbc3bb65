// Music's face at the foot of the page: what plays while somebody looks around.

import { fillCover } from "./cover.js";
import { formatTitle } from "./format.js";
import { fileId } from "./listing.js";
import { element } from "./page.js";

export class MusicBar {
  #music;
  #bar = element("music", HTMLElement);
  #open = element("music-open", HTMLAnchorElement);
  #cover = element("music-cover", HTMLElement);
  #title = element("music-title", HTMLElement);
  #text = element("music-text", HTMLElement);
  #toggle = element("music-toggle", HTMLButtonElement);
  #progress = element("music-progress", HTMLElement);
  #shown = "";

  /**
   * @param {import("./music.js").Music} music
   * @param {(id: string) => void} onOpen somebody wants to see the song that plays
   */
  constructor(music, onOpen) {
    this.#music = music;
    music.onChange(() => this.#draw());
    this.#open.addEventListener("click", (event) => {
      const wantsNewTab = event.metaKey || event.ctrlKey || event.shiftKey;
      if (music.file && !wantsNewTab) {
        event.preventDefault();
        onOpen(fileId(music.file));
      }
    });
    this.#toggle.addEventListener("click", () => music.toggle());
    /** @type {[id: string, action: () => void][]} */
    const buttons = [
      ["music-previous", () => void music.step(-1)],
      ["music-next", () => void music.step(1)],
      ["music-close", () => music.close()],
    ];
    for (const [id, action] of buttons) {
      element(id, HTMLButtonElement).addEventListener("click", action);
    }
  }

  #draw() {
    const { file, media, said } = this.#music;
    this.#bar.hidden = file === null;
    document.body.classList.toggle("has-music", file !== null);
    if (!file) {
      this.#shown = "";
      return;
    }
    if (this.#shown !== fileId(file)) {
      this.#shown = fileId(file);
      this.#open.href = `/?file=${fileId(file)}`;
      this.#title.textContent = formatTitle(file);
      fillCover(this.#cover, file);
    }
    const text = said ?? file.performer ?? "";
    if (this.#text.textContent !== text) {
      this.#text.textContent = text; // only when it changes: it is read aloud
    }
    showPlaying(this.#toggle, media);
    const share = media.duration ? media.currentTime / media.duration : 0;
    this.#progress.style.setProperty("--seen", String(share));
  }
}

/**
 * A button that plays or pauses, and says which.
 * @param {HTMLButtonElement} button
 * @param {HTMLMediaElement} media
 */
export function showPlaying(button, media) {
  const isPlaying = !media.paused;
  button.classList.toggle("is-playing", isPlaying);
  const label = isPlaying ? "Pause" : "Play";
  button.setAttribute("aria-label", label);
  button.title = label;
}
