// The strip of an album under the picture: small pictures of all its files, the open one marked.

import { fillCover } from "./cover.js";
import { formatTitle } from "./format.js";
import { fileId } from "./listing.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

const KIND_NAMES = { video: "Film", image: "Picture", audio: "Song", document: "File" };

export class Strip {
  #box;
  #list;
  #place;
  #onChoice;
  #shown = "";

  /**
   * @param {HTMLElement} box
   * @param {HTMLElement} list
   * @param {HTMLElement} place where it is said which of them is open
   * @param {(id: string) => void} onChoice
   */
  constructor(box, list, place, onChoice) {
    this.#box = box;
    this.#list = list;
    this.#place = place;
    this.#onChoice = onChoice;
  }

  /**
   * A file by itself needs no strip.
   * @param {MediaFile[]} files
   * @param {string} id of the open one
   */
  show(files, id) {
    const ids = files.map(fileId);
    const key = ids.join(" ");
    this.#box.hidden = files.length < 2;
    if (key !== this.#shown) {
      this.#shown = key;
      this.#list.replaceChildren(
        ...(files.length < 2 ? [] : files.map((file, index) => this.#entry(file, index, files))),
      );
    }
    const at = ids.indexOf(id);
    this.#place.textContent = this.#box.hidden ? "" : `${at + 1} of ${files.length}`;
    for (const [index, entry] of [...this.#list.children].entries()) {
      entry.toggleAttribute("aria-current", index === at);
      if (index === at) {
        entry.setAttribute("aria-current", "true");
        entry.scrollIntoView({ block: "nearest", inline: "center" });
      }
    }
  }

  hide() {
    this.show([], "");
  }

  /**
   * @param {MediaFile} file
   * @param {number} index
   * @param {MediaFile[]} files
   */
  #entry(file, index, files) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "strip-entry";
    const name = `${KIND_NAMES[file.kind]} ${index + 1} of ${files.length}`;
    button.setAttribute("aria-label", name);
    button.title = formatTitle(file);
    fillCover(button, file);
    button.addEventListener("click", () => this.#onChoice(fileId(file)));
    return button;
  }
}
