// The qualities of a film in the viewer's menu.

import { formatSize } from "./format.js";
import { optionsOf } from "./qualities.js";

/** @typedef {import("./qualities.js").Qualities} Qualities */

export class QualityMenu {
  #section;
  #box;

  /**
   * @param {HTMLElement} section hidden while there is nothing to choose from
   * @param {HTMLElement} box for the choices
   * @param {(quality: string) => void} onChoice
   */
  constructor(section, box, onChoice) {
    this.#section = section;
    this.#box = box;
    box.addEventListener("change", (event) => {
      onChoice(/** @type {HTMLInputElement} */ (event.target).value);
    });
  }

  /**
   * Where the choices are the same they stay in place, and with them the keyboard's focus.
   * @param {Qualities | null} qualities
   */
  show(qualities) {
    this.#section.hidden = qualities === null;
    const options = qualities ? optionsOf(qualities, formatSize) : [];
    const inputs = this.#box.querySelectorAll("input");
    const isSame =
      inputs.length === options.length &&
      options.every(({ value }, index) => inputs[index].value === value);
    if (!isSame) {
      this.#box.replaceChildren(...options.map(({ value }) => chip(value)));
    }
    for (const [index, label] of [...this.#box.children].entries()) {
      const { text, isChosen } = options[index];
      /** @type {HTMLInputElement} */ (label.firstChild).checked = isChosen;
      /** @type {HTMLElement} */ (label.lastChild).textContent = text;
    }
  }
}

/** @param {string} value */
function chip(value) {
  const label = document.createElement("label");
  label.className = "chip";
  const input = document.createElement("input");
  Object.assign(input, { type: "radio", name: "quality", value });
  label.append(input, document.createElement("span"));
  return label;
}
