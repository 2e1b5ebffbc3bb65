// The share dialog: makes links to one file, shows those there are, ends them.

import { ApiError, createShare, listShares, revokeShare } from "./api.js";
import { formatDate } from "./format.js";
import { fileId } from "./listing.js";
import { clone, copyText, element } from "./page.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */
/** @typedef {import("./api.js").Share} Share */

export class ShareDialog {
  #dialog = element("share", HTMLDialogElement);
  #ends = element("share-ends", HTMLElement);
  #make = element("share-make", HTMLButtonElement);
  #list = element("share-list", HTMLElement);
  #note = element("share-note", HTMLElement);
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
    /** @type {(name: string) => HTMLElement} */
    const part = (name) => /** @type {HTMLElement} */ (entry.querySelector(`.share-${name}`));
    const link = /** @type {HTMLInputElement} */ (part("link"));
    link.value = share.url;
    link.addEventListener("focus", () => link.select());
    part("end").textContent =
      share.expires_at === null ? "Never ends" : `Ends ${formatDate(share.expires_at)}`;
    copyOnClick(part("copy"), share.url);
    copyOnClick(part("embed"), share.embed_code);
    const playlist = /** @type {HTMLAnchorElement} */ (part("playlist"));
    playlist.href = share.m3u_url;
    part("revoke").addEventListener("click", () => {
      void this.#attempt(async () => {
        await revokeShare(share.id);
        entry.remove();
        this.#make.focus();
      });
    });
    return entry;
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
 * @param {HTMLElement} button
 * @param {string} text
 */
function copyOnClick(button, text) {
  button.addEventListener("click", () => void copyText(text, button));
}
