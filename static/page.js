// Finds what a page promises to contain, and says so when it does not; copies text.

/**
 * The element with this id.
 * @template {HTMLElement} T
 * @param {string} id
 * @param {new () => T} type
 * @returns {T}
 */
export function element(id, type) {
  const found = document.getElementById(id);
  if (!(found instanceof type)) {
    throw new TypeError(`this page has no ${type.name} called ${id}`);
  }
  return found;
}

/**
 * A copy of the one element inside the template with this id.
 * @param {string} id
 * @returns {HTMLElement}
 */
export function clone(id) {
  const { firstElementChild } = element(id, HTMLTemplateElement).content;
  return /** @type {HTMLElement} */ (
    document.importNode(/** @type {Element} */ (firstElementChild), true)
  );
}

/**
 * A part of such a copy.
 * @template {HTMLElement} T
 * @param {HTMLElement} copied
 * @param {string} selector
 * @param {new () => T} type
 * @returns {T}
 */
export function part(copied, selector, type) {
  const found = copied.querySelector(selector);
  if (!(found instanceof type)) {
    throw new TypeError(`this page has no ${selector} in what was cloned`);
  }
  return found;
}

/** The addresses of the workers, as the gallery's server has them. */
export function workersOfPage() {
  return (element("page", HTMLElement).dataset.workers ?? "").split(" ").filter(Boolean);
}

/**
 * @param {HTMLProgressElement} bar
 * @param {{share: number | null}} progress null: nobody knows how long it will be
 */
export function showProgress(bar, { share }) {
  if (share === null) {
    bar.removeAttribute("value");
  } else {
    bar.value = share;
  }
}

const SAID_MS = 1800;

/**
 * Copy, and say so: on the button for a moment, and in the live region for those who hear the page.
 * Where the browser will not, the text stands selected in its field, for the person's own keys.
 * @param {string} text
 * @param {HTMLElement} button
 * @param {{said?: HTMLElement, name?: string, field?: HTMLInputElement}} [options]
 */
export async function copyText(text, button, { said, name = "", field } = {}) {
  const label = button.dataset.label ?? button.textContent ?? "";
  button.dataset.label = label;
  const isCopied = await copy(text);
  if (!isCopied && field) {
    field.focus();
    field.select();
  }
  button.textContent = isCopied ? "Copied" : "Not copied";
  if (said) {
    const keys = /Mac|iP(hone|ad)/.test(navigator.userAgent) ? "⌘C" : "Ctrl+C";
    const help = field ? `It is selected: press ${keys}.` : "The browser does not allow it.";
    say(said, isCopied ? `${name} copied` : `Not copied. ${help}`);
  }
  setTimeout(() => {
    button.textContent = label;
  }, SAID_MS);
}

/**
 * A live region is read out when it changes, so the same words again must come anew.
 * @param {HTMLElement} region
 * @param {string} text
 */
function say(region, text) {
  region.textContent = "";
  requestAnimationFrame(() => {
    region.textContent = text;
  });
}

/**
 * @param {string} text
 * @returns {Promise<boolean>} whether it is in the clipboard now
 */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // plain http has no clipboard
  }
}

/** @param {string} text */
function copyBySelection(text) {
  const before = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "unseen";
  // Outside an open dialog nothing can be focused.
  (before?.closest("dialog") ?? document.body).append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (before instanceof HTMLElement) {
    before.focus();
  }
  return isCopied;
}
