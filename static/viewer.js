// The viewer: one file, full window. Knows how each kind is shown; the player keeps films going.

import { ApiError, fileId, getFile, signUrl } from "./api.js";
import { formatDuration, formatFacts, formatTitle } from "./format.js";
import { fillPlaceholder } from "./grid.js";
import { element } from "./page.js";
import { Player } from "./player.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

export class Viewer {
  #dialog = element("viewer", HTMLDialogElement);
  #stage = element("viewer-stage", HTMLElement);
  #status = element("viewer-status", HTMLElement);
  #problem = element("viewer-problem", HTMLElement);
  #problemText = element("viewer-problem-text", HTMLElement);
  #retry = element("viewer-retry", HTMLButtonElement);
  #download = element("viewer-download", HTMLAnchorElement);
  /** @type {Player | null} */
  #player = null;
  /** The file that is open; answers for another one come too late. */
  #id = "";

  /** @param {() => void} onLeave called when the person wants to go back */
  constructor(onLeave) {
    element("viewer-close", HTMLButtonElement).addEventListener("click", onLeave);
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      onLeave();
    });
    this.#retry.addEventListener("click", () => this.#tryAgain());
    this.#download.addEventListener("click", (event) => void this.#startDownload(event));
  }

  get isOpen() {
    return this.#dialog.open;
  }

  get openId() {
    return this.#id;
  }

  /**
   * @param {string} id
   * @param {MediaFile} [known] what the grid knows of it; a deep link has to ask
   */
  async open(id, known) {
    this.#clear();
    this.#id = id;
    if (!this.#dialog.open) {
      this.#dialog.showModal();
    }
    try {
      const file = known ?? (await getFile(id));
      if (this.#id === id) {
        this.#show(file);
      }
    } catch (error) {
      if (this.#id === id) {
        this.#showProblem(messageOf(error));
      }
    }
  }

  close() {
    this.#clear();
    this.#dialog.close();
  }

  #clear() {
    this.#player?.close();
    this.#player = null;
    this.#id = "";
    this.#stage.replaceChildren();
    this.#showStatus(null);
    this.#showProblem(null);
    this.#download.hidden = true;
    this.#describe("", "", "");
  }

  /** @param {MediaFile} file */
  #show(file) {
    const facts = [formatDuration(file.duration), formatFacts(file, { resolution: true })];
    this.#describe(formatTitle(file), facts.filter(Boolean).join(" · "), file.caption);
    this.#download.hidden = false;
    this.#download.href = `?file=${fileId(file)}`;
    document.title = `${formatTitle(file)} – Rangegram`;
    if (file.kind === "video") {
      this.#showVideo(file);
    } else if (file.kind === "audio") {
      this.#showAudio(file);
    } else if (file.kind === "image") {
      void this.#showImage(file);
    } else {
      this.#showDocument(file);
    }
  }

  /**
   * @param {string} title
   * @param {string} facts
   * @param {string} caption
   */
  #describe(title, facts, caption) {
    element("viewer-title", HTMLElement).textContent = title;
    element("viewer-facts", HTMLElement).textContent = facts;
    const paragraph = element("viewer-caption", HTMLElement);
    paragraph.textContent = caption;
    paragraph.hidden = !caption || caption === title;
    document.title = "Rangegram";
  }

  /** @param {MediaFile} file */
  #showVideo(file) {
    const video = document.createElement("video");
    video.playsInline = true;
    if (file.thumbnail) {
      video.poster = file.thumbnail;
    }
    this.#stage.append(video);
    this.#play(video, file);
  }

  /** @param {MediaFile} file */
  #showAudio(file) {
    const audio = document.createElement("audio");
    this.#stage.append(this.#sheet(file, audio));
    this.#play(audio, file);
  }

  /**
   * @param {HTMLMediaElement} media
   * @param {MediaFile} file
   */
  #play(media, file) {
    media.controls = true;
    media.preload = "metadata";
    media.crossOrigin = "anonymous";
    media.setAttribute("aria-label", formatTitle(file));
    const id = fileId(file);
    this.#player = new Player(media, id, (attempt) => signUrl(id, attempt), {
      showStatus: (text) => this.#showStatus(text),
      showProblem: (text) => this.#showProblem(text),
      adopt: () => {},
      countBytes: () => {},
    });
    media.focus();
    void this.#player.open();
  }

  /** @param {MediaFile} file */
  async #showImage(file) {
    const id = fileId(file);
    const image = document.createElement("img");
    image.alt = file.caption || formatTitle(file);
    const late = setTimeout(() => this.#id === id && this.#showStatus("Loading…"), 300);
    try {
      image.src = (await signUrl(id)).url;
      await image.decode();
      if (this.#id === id) {
        this.#stage.replaceChildren(image);
      }
    } catch (error) {
      if (this.#id === id) {
        this.#showProblem(messageOf(error, "The picture cannot be loaded."));
      }
    } finally {
      clearTimeout(late);
      if (this.#id === id) {
        this.#showStatus(null);
      }
    }
  }

  /** @param {MediaFile} file */
  #showDocument(file) {
    const button = document.createElement("a");
    button.className = "button button-primary";
    button.href = this.#download.href;
    button.textContent = "Download";
    button.addEventListener("click", (event) => void this.#startDownload(event));
    this.#stage.append(this.#sheet(file, button));
  }

  /**
   * Cover, name and one control, for what has no moving picture.
   * @param {MediaFile} file
   * @param {HTMLElement} control
   */
  #sheet(file, control) {
    const sheet = document.createElement("div");
    sheet.className = "viewer-sheet";
    const cover = document.createElement("div");
    cover.className = "viewer-cover";
    const placeholder = document.createElement("span");
    placeholder.className = "card-placeholder";
    fillPlaceholder(placeholder, file);
    cover.append(placeholder);
    if (file.thumbnail) {
      const image = document.createElement("img");
      image.alt = "";
      image.addEventListener("error", () => image.remove());
      image.src = file.thumbnail;
      cover.append(image);
    }
    const name = document.createElement("p");
    name.className = "viewer-sheet-name";
    name.textContent = file.name || formatTitle(file);
    sheet.append(cover, name, control);
    return sheet;
  }

  /**
   * Sign at the moment of the click: a link made earlier would have run out.
   * @param {Event} event
   */
  async #startDownload(event) {
    event.preventDefault();
    try {
      const { url } = await signUrl(this.#id);
      location.assign(`${url}&download=1`);
    } catch (error) {
      this.#showProblem(messageOf(error));
    }
  }

  #tryAgain() {
    if (this.#player) {
      void this.#player.retry();
    } else {
      void this.open(this.#id);
    }
  }

  /** @param {string | null} text */
  #showStatus(text) {
    this.#status.textContent = text;
    this.#status.hidden = text === null;
  }

  /** @param {string | null} text */
  #showProblem(text) {
    this.#problemText.textContent = text;
    this.#problem.hidden = text === null;
  }
}

/**
 * @param {unknown} error
 * @param {string} [otherwise]
 */
function messageOf(error, otherwise = "This file cannot be opened.") {
  return error instanceof ApiError ? error.message : otherwise;
}
