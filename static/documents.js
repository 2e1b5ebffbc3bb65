// Documents that a browser can show: a PDF in its own viewer, text as text, whatever it says it is.

import { errorFrom } from "./api.js";
import { fromFirstWorker } from "./first-worker.js";
import { formatSize } from "./format.js";
import { fileId } from "./listing.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */

const TEXT_MAX_BYTES = 512 * 1024; // a long book; laying out more holds up the page
const TEXT_TYPES =
  /^(text\/.+|application\/(json|ld\+json|xml|javascript|x-subrip|x-sh|toml|x?-?yaml|sql)|.+\+(json|xml))$/;
const TEXT_NAMES =
  /\.(txt|text|md|markdown|log|nfo|csv|tsv|srt|vtt|ass|ssa|sub|lrc|cue|m3u8?|json|xml|html?|svg|css|js|ya?ml|toml|ini|conf|py|sh|tex)$/i;

/**
 * How a document can be shown; null if it has to be downloaded.
 * @param {{mime_type: string, name: string}} file
 * @returns {"pdf" | "text" | null}
 */
export function wayToShow({ mime_type: type, name }) {
  if (type === "application/pdf") {
    return "pdf";
  }
  return TEXT_TYPES.test(type) || TEXT_NAMES.test(name) ? "text" : null;
}

/**
 * Text as whoever wrote it meant it: by its mark, as UTF-8, or as old programs for Windows wrote it.
 * Null if it is no text.
 * @param {Uint8Array} bytes of the beginning of a file
 * @returns {string | null}
 */
export function decodeText(bytes) {
  const mark = [bytes[0], bytes[1]].join(" ");
  if (mark === "255 254" || mark === "254 255") {
    return new TextDecoder(mark === "255 254" ? "utf-16le" : "utf-16be").decode(bytes);
  }
  if (bytes.includes(0)) {
    return null;
  }
  try {
    // As a stream: the last character may be cut in two.
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes, { stream: true });
  } catch {
    return new TextDecoder("windows-1252").decode(bytes);
  }
}

/**
 * Where the file opens in a tab of its own, for whoever is signed in; signed anew each time.
 * @param {MediaFile} file
 */
export function tabAddress(file) {
  const name = file.name.replace(/[/\\]/g, "_"); // a slash, even quoted, is undone by some proxies
  const end = /[^.]/.test(name) ? `/${encodeURIComponent(name)}` : "";
  return `/files/${fileId(file)}${end}`;
}

/** Whether a frame shows a PDF whole: phones show its first page in one, or nothing. */
export function hasRoomForPdf() {
  return navigator.pdfViewerEnabled && matchMedia("(pointer: fine) and (width >= 720px)").matches;
}

/**
 * A PDF in a frame. It comes from a worker, never from the gallery's own origin.
 * @param {MediaFile} file
 * @param {AbortSignal} signal
 * @returns {Promise<HTMLElement>}
 */
export async function pdfFrame(file, signal) {
  const { url } = await fetchStart(file, { bytes: 1, fromWorker: true, signal });
  const frame = document.createElement("iframe");
  frame.className = "paper";
  frame.title = file.name;
  frame.referrerPolicy = "no-referrer";
  frame.src = url;
  return frame;
}

/**
 * The text of a document, or as much of it as a page can hold; null if it is none after all.
 * @param {MediaFile} file
 * @param {AbortSignal} signal
 * @returns {Promise<HTMLElement | null>}
 */
export async function textSheet(file, signal) {
  const { response } = await fetchStart(file, { bytes: TEXT_MAX_BYTES, signal });
  const text = decodeText(new Uint8Array(await response.arrayBuffer()));
  if (text === null) {
    return null;
  }
  const sheet = document.createElement("pre");
  sheet.className = "paper paper-text";
  sheet.tabIndex = 0; // so that its own keys scroll it
  sheet.textContent = text;
  if (file.size > TEXT_MAX_BYTES) {
    const note = document.createElement("p");
    note.className = "paper-note";
    const shown = formatSize(TEXT_MAX_BYTES);
    note.textContent = `This is the first ${shown} of ${formatSize(file.size)}. The download has all of it.`;
    sheet.append(note);
  }
  return sheet;
}

/**
 * The first bytes of a file, from the first place that gives them.
 * @param {MediaFile} file
 * @param {{bytes: number, fromWorker?: boolean, signal: AbortSignal}} options
 * @returns {Promise<{url: string, response: Response}>}
 */
function fetchStart(file, { bytes, signal, ...options }) {
  const headers = { Range: `bytes=0-${bytes - 1}` };
  const take = async (/** @type {string} */ url) => {
    const response = await fetch(url, { headers, signal });
    if (!response.ok) {
      throw await errorFrom(response);
    }
    return { url, response };
  };
  return fromFirstWorker(fileId(file), take, { signal, ...options });
}
