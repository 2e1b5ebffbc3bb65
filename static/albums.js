// Which files are one album: posts of one album that follow one another in the list. Pure.

import { fileId } from "./listing.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

/**
 * What the cards stand for: a file by itself, or the files of an album in the order in which they
 * were posted, whatever the order of the list. Where the list tears an album apart, by its sizes or
 * names, its pieces stay where the list has them.
 * @param {MediaFile[]} files
 * @returns {MediaFile[][]}
 */
export function groupsOf(files) {
  /** @type {MediaFile[][]} */
  const groups = [];
  for (const file of files) {
    const last = groups.at(-1);
    if (last?.[0] && isSameAlbum(last[0], file)) {
      last.push(file);
    } else {
      groups.push([file]);
    }
  }
  for (const group of groups) {
    group.sort((one, other) => one.message_id - other.message_id);
  }
  return groups;
}

/**
 * @param {MediaFile} one
 * @param {MediaFile} other
 */
function isSameAlbum(one, other) {
  return Boolean(one.album) && one.album === other.album && one.chat_id === other.chat_id;
}

/**
 * The file before or after this one.
 * @param {MediaFile[]} files
 * @param {string} id
 * @param {1 | -1} step
 * @returns {MediaFile | null} null at the ends, and for a file that is not among them
 */
export function besides(files, id, step) {
  const index = files.findIndex((file) => fileId(file) === id);
  return (index >= 0 && files[index + step]) || null;
}

const NOUNS = { video: "film", image: "picture", audio: "song", document: "file" };

/**
 * What an album is called by: `pictures` if they all are, otherwise `files`.
 * @param {MediaFile[]} files
 */
export function nounOf(files) {
  const kinds = new Set(files.map((file) => file.kind));
  const [kind] = kinds;
  return kinds.size === 1 && kind ? NOUNS[kind] : "file";
}
