// The share dialog: makes links to one file, shows those there are, ends them.

import { ApiError, createShare, listShares, revokeShare } from "./api.js";
import { formatDate } from "./format.js";
import { fileId } from "./listing.js";
import { clone, copyText, element } from "./page.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */
/** @typedef {import("./api.js").Share} Share */

const ELEMENTS = {
  video: "<video>",
  audio: "<audio>",
  image: "<img>",
  document: "<a> to download",
};
let fields = 0;

export class ShareDialog {
  #dialog = element("share", HTMLDialogElement);
  #ends = element("share-ends", HTMLElement);
  #make = element("share-make", HTMLButtonElement);
  #list = element("share-list", HTMLElement);
  #note = element("share-note", HTMLElement);
  #said = element("share-said", HTMLElement);
  #problem = element("share-problem", HTMLElement);
  /** @type {MediaFile | null} */
  #file = null;

  constructor() {
    element("share-close", HTMLButtonElement).addEventListener("click", () => this.#dialog.close());
    this.#make.addEventListener("click", () => void this.#makeLink());
    this.#dialog.addEventListener("click", (event) => {
      if (event.target === this.#dialog) {
        this.#dialog.close(); // a click beside the sheet, on its backdrop
      }
    });
    // The viewer underneath has an Escape of its own.
    this.#dialog.addEventListener("cancel", (event) => event.stopPropagation());
  }

  /** @param {MediaFile} file */
  async open(file) {
    this.#file = file;
    this.#list.replaceChildren();
    this.#problem.hidden = true;
    this.#note.hidden = true;
    this.#dialog.showModal();
    await this.#attempt(async () => {
      const { shares, durable } = await listShares();
      this.#note.hidden = durable;
      const ofThis = shares.filter((share) => fileId(share) === fileId(file) && !share.revoked);
      this.#list.replaceChildren(...ofThis.map((share) => this.#entry(share)));
    });
  }

  close() {
    this.#dialog.close();
  }

  async #makeLink() {
    const file = this.#file;
    const chosen = this.#ends.querySelector("input:checked");
    if (!file || !(chosen instanceof HTMLInputElement)) {
      return;
    }
    this.#make.disabled = true;
    await this.#attempt(async () => {
      const share = await createShare(file, chosen.value ? Number(chosen.value) : null);
      const entry = this.#entry(share);
      this.#list.prepend(entry);
      entry.querySelector("button")?.focus();
    });
    this.#make.disabled = false;
  }

  /** @param {Share} share */
  #entry(share) {
    const entry = clone("share-template");
    this.#fill(part(entry, "main"), "Link", share.watch_url);
    part(entry, "ways").replaceChildren(
      ...waysOf(share, this.#file).map(([name, text]) => this.#way(name, text)),
    );
    part(entry, "end").textContent =
      share.expires_at === null ? "Never ends" : `Ends ${formatDate(share.expires_at)}`;
    /** @type {HTMLAnchorElement} */ (part(entry, "open")).href = share.watch_url;
    part(entry, "revoke").addEventListener("click", () => {
      void this.#attempt(async () => {
        await revokeShare(share.id);
        entry.remove();
        this.#make.focus();
      });
    });
    return entry;
  }

  /**
   * @param {string} name
   * @param {string} text
   */
  #way(name, text) {
    const way = clone("share-way-template");
    const label = /** @type {HTMLLabelElement} */ (part(way, "label"));
    const { field, button } = this.#fill(way, name, text);
    label.textContent = name;
    label.id = `${field.id}-name`;
    label.htmlFor = field.id;
    button.id = `${field.id}-copy`;
    button.setAttribute("aria-labelledby", `${button.id} ${label.id}`);
    return way;
  }

  /**
   * A field with a text to take along, and the button that copies it.
   * @param {HTMLElement} row
   * @param {string} name
   * @param {string} text
   */
  #fill(row, name, text) {
    const field = /** @type {HTMLInputElement} */ (part(row, "text"));
    const button = part(row, "copy");
    fields += 1;
    field.id = `share-text-${fields}`;
    field.value = text;
    field.addEventListener("focus", () => field.select());
    button.addEventListener("click", () => {
      void copyText(text, button, { said: this.#said, name, field });
    });
    return { field, button };
  }

  /** @param {() => Promise<void>} work */
  async #attempt(work) {
    this.#problem.hidden = true;
    try {
      await work();
    } catch (error) {
      if (!(error instanceof ApiError)) {
        throw error;
      }
      this.#problem.textContent = error.message;
      this.#problem.hidden = false;
    }
  }
}

/**
 * What else a link is good for: a name for people, and the text to copy.
 * @param {Share} share
 * @param {MediaFile | null} file
 * @returns {[string, string][]}
 */
function waysOf(share, file) {
  const element = ELEMENTS[file?.kind ?? "video"];
  const isPlayed = file?.kind === "video" || file?.kind === "audio";
  return [
    ["Direct link, for players and downloads", share.url],
    [`HTML: ${element}`, share.media_code],
    ["HTML: <iframe> with the player", share.embed_code],
    .../** @type {[string, string][]} */ (
      isPlayed ? [["Playlist (m3u), for VLC and others", share.m3u_url]] : []
    ),
  ];
}

/**
 * @param {HTMLElement} entry
 * @param {string} name
 */
function part(entry, name) {
  return /** @type {HTMLElement} */ (entry.querySelector(`.share-${name}`));
}
