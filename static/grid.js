// The grid of cards: what a file looks like before it is opened.

import { fileId } from "./api.js";
import { formatDuration, formatExtension, formatFacts, formatTitle } from "./format.js";
import { clone } from "./page.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

const SKELETONS = 12;
const KIND_NAMES = { video: "Film", image: "Picture", audio: "Music", document: "File" };

export class Grid {
  /** @param {HTMLElement} list */
  constructor(list) {
    this.list = list;
    /** @type {Map<string, {file: MediaFile, card: HTMLElement}>} */
    this.shown = new Map();
  }

  /** @param {string} id */
  fileOf(id) {
    return this.shown.get(id)?.file;
  }

  /** @param {string} id */
  focus(id) {
    this.shown.get(id)?.card.querySelector("a")?.focus();
  }

  get size() {
    return this.shown.size;
  }

  /** Grey cards where the real ones will be, so that nothing jumps when they come. */
  showSkeletons() {
    this.clear();
    this.list.setAttribute("aria-busy", "true");
    this.list.append(...Array.from({ length: SKELETONS }, () => clone("skeleton-template")));
  }

  clear() {
    this.shown.clear();
    this.list.replaceChildren();
    this.list.removeAttribute("aria-busy");
  }

  /**
   * Show these files from the start. Cards already there are kept, and with them their pictures.
   * @param {MediaFile[]} files
   */
  replace(files) {
    const before = this.shown;
    this.shown = new Map();
    const cards = files.map((file) => this.#remember(file, before.get(fileId(file))?.card));
    this.list.replaceChildren(...cards);
    this.list.removeAttribute("aria-busy");
  }

  /** @param {MediaFile[]} files */
  append(files) {
    const fresh = files.filter((file) => !this.shown.has(fileId(file)));
    this.list.append(...fresh.map((file) => this.#remember(file)));
  }

  /**
   * @param {MediaFile} file
   * @param {HTMLElement} [card]
   */
  #remember(file, card = createCard(file)) {
    this.shown.set(fileId(file), { file, card });
    return card;
  }
}

/** @param {MediaFile} file */
function createCard(file) {
  const card = clone("card-template");
  const title = formatTitle(file);
  const duration = formatDuration(file.duration);
  const link = /** @type {HTMLAnchorElement} */ (card.querySelector(".card-link"));
  link.href = `/?file=${fileId(file)}`;
  link.dataset.file = fileId(file);
  link.title = file.name || title;
  link.setAttribute(
    "aria-label",
    [KIND_NAMES[file.kind], title, duration, formatFacts(file)].filter(Boolean).join(", "),
  );
  fill(card, ".card-title", title);
  fill(card, ".card-facts", formatFacts(file));
  const isPlayable = file.kind === "video" || file.kind === "audio";
  fill(card, ".card-badge", isPlayable ? duration : formatExtension(file.name));
  /** @type {HTMLElement} */ (card.querySelector(".card-play")).hidden = !isPlayable;
  const placeholder = /** @type {HTMLElement} */ (card.querySelector(".card-placeholder"));
  fillPlaceholder(placeholder, file);
  showThumbnail(/** @type {HTMLImageElement} */ (card.querySelector(".card-thumbnail")), file);
  return card;
}

/**
 * A calm colour of the file's own and the icon of its kind, for as long as there is no picture.
 * @param {HTMLElement} placeholder
 * @param {MediaFile} file
 */
export function fillPlaceholder(placeholder, file) {
  let hash = 0;
  for (const character of file.name) {
    hash = (hash * 31 + (character.codePointAt(0) ?? 0)) % 360;
  }
  placeholder.style.setProperty("--hue", String(hash));
  placeholder.replaceChildren(clone(`${file.kind}-icon`));
}

/**
 * The picture appears when it is there; one that cannot be loaded leaves the placeholder.
 * @param {HTMLImageElement} image
 * @param {MediaFile} file
 */
function showThumbnail(image, file) {
  if (!file.thumbnail) {
    return;
  }
  image.hidden = false;
  image.addEventListener("load", () => image.classList.add("is-loaded"), { once: true });
  image.addEventListener("error", () => image.remove(), { once: true });
  image.src = file.thumbnail;
}

/**
 * @param {HTMLElement} card
 * @param {string} selector
 * @param {string} text
 */
function fill(card, selector, text) {
  /** @type {HTMLElement} */ (card.querySelector(selector)).textContent = text;
}
