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
