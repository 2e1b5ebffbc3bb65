// The grid of cards. However long the list is, only the cards near the window exist.

import { groupsOf, nounOf } from "./albums.js";
import { getFile } from "./api.js";
import {
  formatCount,
  formatDate,
  formatDuration,
  formatExtension,
  formatFacts,
  formatTitle,
} from "./format.js";
import { fileId } from "./listing.js";
import { clone, part, workersOfPage } from "./page.js";
import { shareSeen } from "./positions.js";
import { cardsInView, columnsIn, neighbourOf, placeOf } from "./rows.js";
import { workerOf } from "./workers.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */
/** @typedef {import("./rows.js").Layout} Layout */

const MARGIN_PX = 700; // how far from the window cards are kept ready
const SKELETON_ROWS = 4; // where nothing is known yet
const SKELETON_ROWS_AFTER = 2; // where the next page will be
const KIND_NAMES = { video: "Film", image: "Picture", audio: "Music", document: "File" };

export class Grid {
  #list;
  /** @type {MediaFile[]} */
  #files = [];
  /** What the cards stand for: files, and albums as one. @type {MediaFile[][]} */
  #groups = [];
  #hasMore = false;
  #total = 0;
  /** Those that exist, by their place in the list. @type {Map<number, HTMLElement>} */
  #cards = new Map();
  /** @type {HTMLElement[]} */
  #skeletons = [];
  /** @type {Layout} */
  #layout = { columns: 1, width: 0, columnGap: 0, rowHeight: 1 };
  #isDrawn = true;
  #measuredWidth = 0;

  /** @param {HTMLElement} list */
  constructor(list) {
    this.#list = list;
    addEventListener("scroll", () => this.#drawSoon(), { passive: true });
    new ResizeObserver(() => {
      if (list.clientWidth !== this.#measuredWidth) {
        this.#measure(); // not when it is the height that has changed, which is our own doing
      }
    }).observe(list);
    list.addEventListener("keydown", (event) => this.#onKey(event));
    list.addEventListener("focusout", () => this.#drawSoon());
  }

  get files() {
    return this.#files;
  }

  /** The files in the order in which one follows the other: an album in its own. */
  get sequence() {
    return this.#groups.flat();
  }

  /**
   * The files on the card of this one; empty if there is none.
   * @param {string} id
   */
  groupOf(id) {
    return this.#groups[this.#indexOf(id)] ?? [];
  }

  /**
   * Whether more of an album that ends the list may still come.
   * @param {string} id
   */
  mayGrow(id) {
    return this.#hasMore && this.#indexOf(id) === this.#groups.length - 1;
  }

  /** @param {string} id of a file on the card */
  #indexOf(id) {
    return this.#groups.findIndex((files) => files.some((file) => fileId(file) === id));
  }

  /** @param {string} id */
  fileOf(id) {
    return this.#files.find((file) => fileId(file) === id);
  }

  /** Grey cards where the real ones will be, so that nothing jumps when they come. */
  showSkeletons() {
    this.#files = [];
    this.#groups = [];
    this.#hasMore = true;
    this.#list.setAttribute("aria-busy", "true");
    this.#forgetCards();
    this.#measure();
  }

  /**
   * Show these files. Cards already there are kept, and with them their pictures and the focus.
   * @param {MediaFile[]} files
   * @param {{hasMore: boolean, total: number}} more
   */
  show(files, { hasMore, total }) {
    const before = new Map(
      [...this.#cards].map(([index, card]) => [keyOf(this.#groups[index] ?? []), card]),
    );
    this.#cards.clear();
    this.#files = files;
    this.#groups = groupsOf(files);
    this.#hasMore = hasMore;
    this.#total = total;
    for (const [index, group] of this.#groups.entries()) {
      const key = keyOf(group);
      const card = before.get(key);
      if (card) {
        before.delete(key);
        this.#cards.set(index, card);
      }
    }
    for (const card of before.values()) {
      card.remove();
    }
    this.#list.removeAttribute("aria-busy");
    this.#measure();
  }

  /**
   * Bring a card into the window and the focus to it.
   * @param {string} id
   */
  focus(id) {
    const index = this.#indexOf(id);
    if (index >= 0) {
      this.#focusAt(index);
    }
  }

  /**
   * What a card says of its file may have changed: how much of it has been seen.
   * @param {string} id
   */
  refresh(id) {
    const index = this.#indexOf(id);
    const card = this.#cards.get(index);
    if (card && this.#groups[index]?.length === 1) {
      showProgress(card, id);
    }
  }

  /** @param {number} index */
  #focusAt(index) {
    const { y } = placeOf(index, this.#layout);
    const top = this.#list.getBoundingClientRect().top + y;
    if (top < 80 || top + this.#layout.rowHeight > innerHeight) {
      scrollBy({ top: top - Math.max(80, (innerHeight - this.#layout.rowHeight) / 2) });
    }
    this.#draw();
    this.#cards.get(index)?.querySelector("a")?.focus({ preventScroll: true });
  }

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const link = /** @type {HTMLElement} */ (event.target).closest("a");
    const index = this.#indexOf(link?.dataset.file ?? "");
    if (index < 0 || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey) {
      return;
    }
    const goal = neighbourOf(event.key, index, this.#groups.length, this.#layout.columns);
    if (goal !== index) {
      event.preventDefault();
      this.#focusAt(goal);
    }
  }

  /** Work out columns and row height anew, after a change of the window or of the list. */
  #measure() {
    const style = getComputedStyle(this.#list);
    const columnGap = Number.parseFloat(style.columnGap);
    const least = Number.parseFloat(style.getPropertyValue("--card-min"));
    this.#measuredWidth = this.#list.clientWidth;
    const { columns, width } = columnsIn(this.#measuredWidth, least, columnGap);
    this.#list.style.setProperty("--card-width", `${width}px`);
    const text = Number.parseFloat(style.getPropertyValue("--card-text"));
    const rowHeight = (width * 9) / 16 + text + Number.parseFloat(style.rowGap);
    this.#layout = { columns, width, columnGap, rowHeight };
    for (const [index, card] of this.#cards) {
      this.#put(card, index);
    }
    this.#putSkeletons();
    this.#draw();
  }

  #putSkeletons() {
    const { columns, rowHeight } = this.#layout;
    const rows = this.#groups.length ? SKELETON_ROWS_AFTER : SKELETON_ROWS;
    const wanted = this.#hasMore ? rows * columns : 0;
    while (this.#skeletons.length > wanted) {
      this.#skeletons.pop()?.remove();
    }
    while (this.#skeletons.length < wanted) {
      const skeleton = clone("skeleton-template");
      this.#skeletons.push(skeleton);
      this.#list.append(skeleton);
    }
    for (const [index, skeleton] of this.#skeletons.entries()) {
      this.#put(skeleton, this.#groups.length + index);
    }
    const rowsInAll = Math.ceil((this.#groups.length + wanted) / columns);
    this.#list.style.height = `${rowsInAll * rowHeight}px`;
  }

  #drawSoon() {
    if (this.#isDrawn) {
      this.#isDrawn = false;
      requestAnimationFrame(() => this.#draw());
    }
  }

  /** Make the cards that have come near the window, and let go of those that are far from it. */
  #draw() {
    this.#isDrawn = true;
    const view = {
      top: -this.#list.getBoundingClientRect().top,
      height: innerHeight,
      margin: MARGIN_PX,
    };
    const { first, last } = cardsInView(this.#groups.length, view, this.#layout);
    const total = this.#total - (this.#files.length - this.#groups.length);
    for (const [index, card] of this.#cards) {
      const isNear = index >= first && index < last;
      if (!isNear && !card.contains(document.activeElement)) {
        card.remove();
        this.#cards.delete(index);
      }
    }
    // In the order of the list, which is the order of the Tab key and of a screen reader.
    let next = this.#list.firstElementChild;
    for (let index = first; index < last; index += 1) {
      const card = this.#cards.get(index) ?? this.#make(index);
      card.setAttribute("aria-posinset", String(index + 1));
      card.setAttribute("aria-setsize", String(total));
      if (card === next) {
        next = card.nextElementSibling;
      } else {
        this.#list.insertBefore(card, next);
      }
    }
  }

  /** @param {number} index */
  #make(index) {
    const card = createCard(/** @type {MediaFile[]} */ (this.#groups[index]));
    this.#cards.set(index, card);
    this.#put(card, index);
    return card;
  }

  /**
   * @param {HTMLElement} card
   * @param {number} index
   */
  #put(card, index) {
    const { x, y } = placeOf(index, this.#layout);
    card.style.translate = `${x}px ${y}px`;
  }

  #forgetCards() {
    for (const card of this.#cards.values()) {
      card.remove();
    }
    this.#cards.clear();
  }
}

/**
 * What tells a card from others: an album that has grown is another one.
 * @param {MediaFile[]} group
 */
function keyOf(group) {
  return group.map(fileId).join(" ");
}

/** @param {MediaFile[]} group one file, or the files of an album */
function createCard(group) {
  const [file] = /** @type {[MediaFile]} */ (/** @type {unknown} */ (group));
  const card = clone("card-template");
  const title = formatTitle(file);
  const duration = formatDuration(file.duration);
  const link = part(card, ".card-link", HTMLAnchorElement);
  link.href = `/?file=${fileId(file)}`;
  link.dataset.file = fileId(file);
  link.title = file.name || title;
  part(card, ".card-kind", HTMLElement).textContent = KIND_NAMES[file.kind];
  part(card, ".card-title", HTMLElement).textContent = title;
  part(card, ".card-facts", HTMLElement).textContent = file.performer || formatFacts(file);
  card.dataset.kind = file.kind;
  const isPlayable = file.kind === "video" || file.kind === "audio";
  const badge = isPlayable ? duration : formatExtension(file.name);
  part(card, ".card-badge", HTMLElement).textContent = badge;
  part(card, ".card-play", HTMLElement).hidden = !isPlayable;
  fillPlaceholder(part(card, ".card-placeholder", HTMLElement), file);
  showThumbnail(part(card, ".card-thumbnail", HTMLImageElement), file);
  if (group.length > 1) {
    showAlbum(card, group);
  } else {
    showProgress(card, fileId(file));
  }
  return card;
}

/**
 * The first file's card says how many there are.
 * @param {HTMLElement} card
 * @param {MediaFile[]} group
 */
function showAlbum(card, group) {
  const [first] = /** @type {[MediaFile]} */ (/** @type {unknown} */ (group));
  const count = formatCount(group.length, nounOf(group));
  const caption = group
    .find((file) => file.caption)
    ?.caption.trim()
    .split("\n")[0];
  card.classList.add("card-album");
  part(card, ".card-title", HTMLElement).textContent = caption || formatTitle(first);
  part(card, ".card-facts", HTMLElement).textContent = `${count} · ${formatDate(first.date)}`;
  part(card, ".card-kind", HTMLElement).textContent = `Album of ${count}`;
  const badge = part(card, ".card-badge", HTMLElement);
  badge.replaceChildren(clone("album-icon"), String(group.length));
}

/**
 * The line that says how far somebody has watched.
 * @param {HTMLElement} card
 * @param {string} id
 */
function showProgress(card, id) {
  const share = shareSeen(id);
  const line = part(card, ".card-progress", HTMLElement);
  line.hidden = share === 0;
  line.style.setProperty("--seen", String(share));
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
 * The picture appears when it is there; one that cannot be loaded leaves the placeholder. Its URL
 * lives for an hour and the page for longer, so a failed one is asked for again, once.
 * @param {HTMLImageElement} image
 * @param {MediaFile} file
 */
export function showThumbnail(image, file) {
  if (!file.thumbnail) {
    return;
  }
  const renew = async () => {
    const failed = workersOfPage().length > 1 ? workerOf(image.src) : null;
    const { thumbnail } = await getFile(fileId(file), failed);
    file.thumbnail = thumbnail;
    if (thumbnail) {
      image.src = thumbnail;
    }
  };
  image.hidden = false;
  image.addEventListener("load", () => image.classList.add("is-loaded"), { once: true });
  image.addEventListener(
    "error",
    () => {
      image.addEventListener("error", () => image.remove(), { once: true });
      renew().catch(() => image.remove());
    },
    { once: true },
  );
  image.src = file.thumbnail;
}
