// Finds what gallery.html promises to contain, and says so when it does not.

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
    throw new TypeError(`gallery.html has no ${type.name} called ${id}`);
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
 * Copy, and say so on the button for a moment.
 * @param {string} text
 * @param {HTMLElement} button
 */
export async function copyText(text, button) {
  const label = button.dataset.label ?? button.textContent ?? "";
  button.dataset.label = label;
  button.textContent = (await copy(text)) ? "Copied" : "Copying is not allowed";
  setTimeout(() => {
    button.textContent = label;
  }, SAID_MS);
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
