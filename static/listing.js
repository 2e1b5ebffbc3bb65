// The list as far as it has been fetched, and how a newer first page fits into it. Pure.

/** @typedef {import("./api.js").MediaFile} MediaFile */

/**
 * The file's name in paths and deep links.
 * @param {{chat_id: number, message_id: number}} file
 */
export function fileId(file) {
  return `${file.chat_id}/${file.message_id}`;
}

/**
 * A first page fetched again goes before what follows it, so that nobody who has scrolled far loses
 * the rest. Null when the two have nothing in common: then the new page is all there is.
 * @param {MediaFile[]} known
 * @param {MediaFile[]} page
 * @returns {MediaFile[] | null}
 */
export function mergeFirstPage(known, page) {
  const last = page.at(-1);
  const seam = last ? known.findIndex((file) => fileId(file) === fileId(last)) : -1;
  return seam < 0 ? null : [...page, ...known.slice(seam + 1)];
}

/**
 * Whether both show the same files in the same order.
 * @param {MediaFile[]} one
 * @param {MediaFile[]} other
 */
export function isSameOrder(one, other) {
  return (
    one.length === other.length &&
    one.every((file, index) => fileId(file) === fileId(/** @type {MediaFile} */ (other[index])))
  );
}

/**
 * What follows, without what is there already: a new post moves all others down a place, and the
 * next page then begins with one that is known.
 * @param {MediaFile[]} known
 * @param {MediaFile[]} page
 */
export function withoutKnown(known, page) {
  const ids = new Set(known.slice(-2 * page.length).map(fileId));
  return page.filter((file) => !ids.has(fileId(file)));
}
