// Arithmetic of byte ranges: what an answer covers, and what is still missing of it. Pure.

/**
 * What an answer's body is made of: bytes `start` up to but without `stop` of a file.
 * @typedef {object} Extent
 * @property {number} start
 * @property {number | null} stop null when the server did not say
 * @property {number | null} size of the whole file
 */

/**
 * What a 200 or 206 answers with; null for anything that cannot be resumed.
 * @param {number} status
 * @param {{get(name: string): string | null}} headers
 * @returns {Extent | null}
 */
export function extentOf(status, headers) {
  if (status === 206) {
    return parseContentRange(headers.get("Content-Range"));
  }
  if (status !== 200) {
    return null;
  }
  const size = parseLength(headers.get("Content-Length"));
  return { start: 0, stop: size, size };
}

/**
 * `bytes 5-9/20` is `{start: 5, stop: 10, size: 20}`.
 * @param {string | null} header
 * @returns {Extent | null}
 */
export function parseContentRange(header) {
  const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(header ?? "");
  if (!match || Number(match[2]) < Number(match[1])) {
    return null;
  }
  const size = match[3] === "*" ? null : Number(match[3]);
  return { start: Number(match[1]), stop: Number(match[2]) + 1, size };
}

/** @param {string | null} header */
function parseLength(header) {
  return header !== null && /^\d+$/.test(header) ? Number(header) : null;
}

/**
 * The Range header for what is missing of an extent after `received` bytes; null when nothing is.
 * @param {Extent} extent
 * @param {number} received
 */
export function rangeOfTheRest({ start, stop }, received) {
  const next = start + received;
  if (stop === null) {
    return `bytes=${next}-`;
  }
  return next < stop ? `bytes=${next}-${stop - 1}` : null;
}

/**
 * Whether this answer goes on exactly where the other one broke off, in the same state of the file.
 * @param {{extent: Extent, tag: string | null}} broken
 * @param {number} received how much of it arrived
 * @param {{extent: Extent | null, tag: string | null}} answer
 */
export function continues(broken, received, { extent, tag }) {
  const isSameFile = tag === broken.tag && extent?.size === broken.extent.size;
  return isSameFile && extent?.start === broken.extent.start + received;
}
