// Whole albums of which the list holds a part or nothing: somebody came by a link, or searched.

import { getFile } from "./api.js";
import { fileId } from "./listing.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

const KEPT_MAX = 20; // albums; the list holds those that people usually look at

export class DeepAlbums {
  /** By album and channel. @type {Map<string, Promise<MediaFile[]>>} */
  #albums = new Map();
  /** Those that have come. @type {MediaFile[][]} */
  #known = [];

  /**
   * All files of a file's album in their order, itself among them.
   * @param {MediaFile} file
   * @returns {Promise<MediaFile[]>}
   */
  of(file) {
    const key = `${file.chat_id}/${file.album}`;
    let album = this.#albums.get(key);
    if (!album) {
      album = fetchAlbum(file);
      this.#albums.set(key, album);
      album.then(
        (files) => {
          this.#known = [files, ...this.#known].slice(0, KEPT_MAX);
        },
        () => this.#albums.delete(key),
      );
      for (const oldest of [...this.#albums.keys()].slice(0, -KEPT_MAX)) {
        this.#albums.delete(oldest);
      }
    }
    return album;
  }

  /**
   * The album that holds this file, as far as it has come; empty for others.
   * @param {string} id
   */
  holding(id) {
    return this.#known.find((files) => files.some((file) => fileId(file) === id)) ?? [];
  }
}

/**
 * @param {MediaFile} file
 * @returns {Promise<MediaFile[]>}
 */
async function fetchAlbum(file) {
  const { album_files: posts = [] } = file.album_files ? file : await getFile(fileId(file));
  const found = await Promise.allSettled(
    posts.map((message_id) =>
      message_id === file.message_id ? file : getFile(`${file.chat_id}/${message_id}`),
    ),
  );
  // One that was deleted a moment ago is no reason to hide the others.
  return found.flatMap((each) => (each.status === "fulfilled" ? [each.value] : []));
}
