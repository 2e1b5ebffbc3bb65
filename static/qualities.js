// Which quality of a film is played, and how the choice is put into words. Pure but for the memory
// of the last choice, which this browser alone has.

/** As the line carries it. */
export const AUTO = "auto";
/** The file that was posted, as one piece. */
export const ORIGINAL = "original";

const KEY = "rangegram.quality";
/** What was chosen on this page, where storage may be off, as in some frames. */
let chosenHere = "";

/**
 * Where the qualities of a film are, that Telegram has made of it.
 * @typedef {object} Hls
 * @property {string} url of the master playlist
 * @property {number[]} heights the largest first
 */

/**
 * What a menu of qualities shows.
 * @typedef {object} Qualities
 * @property {string} chosen AUTO, ORIGINAL or a height
 * @property {number[]} heights
 * @property {number} size of the original, in bytes
 * @property {boolean} isOriginal whether the original is played
 * @property {number} width of the picture that is shown, 0 as long as there is none
 * @property {number} height
 */

/** @typedef {{value: string, text: string, isChosen: boolean}} Option */
/** @typedef {{height: number, bitrate: number, videoCodec?: string}} Level as hls.js has it */

/**
 * Whether a URL of a worker leads to a playlist, not to the bytes of a film.
 * @param {string} url
 */
export function isPlaylist(url) {
  return /\/hls\/-?\d+\/\d+\/\w+\.m3u8(\?|$)/.test(url);
}

/** The choice of last time. */
export function recallQuality() {
  if (chosenHere) {
    return chosenHere;
  }
  try {
    const quality = localStorage.getItem(KEY) ?? "";
    return /^(auto|original|[1-9]\d{0,4})$/.test(quality) ? quality : AUTO;
  } catch {
    return AUTO;
  }
}

/** @param {string} quality */
export function rememberQuality(quality) {
  chosenHere = quality;
  try {
    localStorage.setItem(KEY, quality);
  } catch {
    return; // the next page begins with AUTO
  }
}

/**
 * The best of these heights that is not above the one that was chosen, else the least.
 * @param {number[]} heights
 * @param {string} quality a height
 */
export function nearestHeight(heights, quality) {
  const below = heights.filter((height) => height <= Number(quality));
  return below.length > 0 ? Math.max(...below) : Math.min(...heights);
}

/**
 * The levels to play: those of one kind of codec, since no player changes between kinds without a
 * stop. The kind with the most heights, and of several the one that costs least.
 * @template {Level} T
 * @param {T[]} levels all of them can be played here
 * @returns {T[]}
 */
export function levelsOfOneKind(levels) {
  /** @type {Map<string, T[]>} */
  const kinds = new Map();
  for (const level of levels) {
    const kind = (level.videoCodec ?? "").split(".")[0];
    kinds.set(kind, [...(kinds.get(kind) ?? []), level]);
  }
  /** @param {T[]} set */
  const cost = (set) => set.reduce((sum, { bitrate }) => sum + bitrate, 0);
  const ranked = [...kinds.values()].sort(
    (one, other) => other.length - one.length || cost(one) - cost(other),
  );
  return ranked[0] ?? [];
}

/**
 * The URL of one quality in a master playlist; null when there is none of this height.
 * @param {string} playlist
 * @param {string} url of the playlist
 * @param {string} quality a height
 */
export function levelUrl(playlist, url, quality) {
  const found = playlist.matchAll(/^#EXT-X-STREAM-INF:.*RESOLUTION=\d+x(\d+).*\n(.+)$/gm);
  const levels = [...found].map(([, height, address]) => ({ height: Number(height), address }));
  const height = nearestHeight(
    levels.map((level) => level.height),
    quality,
  );
  const level = levels.find((each) => each.height === height);
  return level ? new URL(level.address, url).href : null;
}

/**
 * `720p`: as people call it, by the shorter side.
 * @param {number} height
 * @param {{width: number, height: number}} shape of the picture
 */
export function qualityName(height, shape) {
  const isUpright = shape.width > 0 && shape.width < shape.height;
  return `${isUpright ? Math.round((height * shape.width) / shape.height) : height}p`;
}

/**
 * The choices in words, the best first.
 * @param {Qualities} qualities
 * @param {(bytes: number) => string} formatSize
 * @returns {Option[]}
 */
export function optionsOf({ chosen, heights, size, isOriginal, width, height }, formatSize) {
  const shape = { width, height };
  const shown = isOriginal ? "Original" : height > 0 ? qualityName(height, shape) : "";
  const isNumber = ![AUTO, ORIGINAL].includes(chosen);
  const value = isNumber ? String(nearestHeight(heights, chosen)) : chosen;
  /** @type {[value: string, text: string][]} */
  const options = [
    [AUTO, value === AUTO && shown ? `Auto · ${shown}` : "Auto"],
    ...heights.map(
      (each) => /** @type {[string, string]} */ ([`${each}`, qualityName(each, shape)]),
    ),
    [ORIGINAL, size > 0 ? `Original · ${formatSize(size)}` : "Original"],
  ];
  return options.map(([each, text]) => ({ value: each, text, isChosen: each === value }));
}
