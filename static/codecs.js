// What a browser can make of a film, by what the film's head tells of it. Pure.
//
// A verdict is spoken only where it is sure: a codec or container that is not named here, or that
// the browser may know, is tried. After it was tried and did not play there is more to be said.

/** @typedef {{kind: "video" | "audio" | "text", codec: string, language: string, name: string}} Track */
/** What the worker's /tracks tells. @typedef {{type: string, tracks: Track[]}} Head */
/**
 * What this browser says of itself.
 * @typedef {object} Browser
 * @property {(type: string) => boolean} canOpen whether `canPlayType` answers anything but no
 * @property {(codec: string, kind: "video" | "audio") => Promise<boolean>} canDecode in any container
 */

/** Containers by the ends of names, for posts of which the MIME type tells nothing. */
/** @type {Record<string, string>} */
const TYPES = {
  avi: "video/x-msvideo",
  divx: "video/x-msvideo",
  wmv: "video/x-ms-wmv",
  asf: "video/x-ms-asf",
  wma: "audio/x-ms-wma",
  flv: "video/x-flv",
  mpg: "video/mpeg",
  mpeg: "video/mpeg",
  vob: "video/mpeg",
  rm: "application/vnd.rn-realmedia",
  rmvb: "application/vnd.rn-realmedia",
  mkv: "video/x-matroska",
  mka: "audio/x-matroska",
  ts: "video/mp2t",
  m2ts: "video/mp2t",
  mts: "video/mp2t",
  mov: "video/quicktime",
  mp4: "video/mp4",
  m4v: "video/mp4",
  webm: "video/webm",
};

/** @type {Record<string, string>} */
const NAMES = {
  "video/x-msvideo": "AVI",
  "video/avi": "AVI",
  "video/msvideo": "AVI",
  "video/x-ms-wmv": "WMV",
  "video/x-ms-asf": "WMV",
  "audio/x-ms-wma": "WMA",
  "video/x-flv": "FLV",
  "video/mpeg": "MPEG",
  "application/vnd.rn-realmedia": "RealMedia",
  "video/x-matroska": "MKV",
  "audio/x-matroska": "MKA",
  "video/matroska": "MKV",
  "video/mp2t": "MPEG-TS",
  "video/quicktime": "QuickTime",
};

/** Whose name alone tells that no codec in them would help. */
const NEVER_OPENED = ["AVI", "WMV", "WMA", "FLV", "MPEG", "RealMedia"];

/**
 * The codecs that browsers are known to lack: how they are written in heads, how people call them,
 * and by which word to ask for them if that is another one.
 * @type {{is: RegExp, name: string, asks?: string}[]}
 */
const LACKED = [
  { is: /^(hvc1|hev1)\./, name: "HEVC (H.265)" },
  { is: /^(dvh1|dvhe)/, name: "Dolby Vision" },
  { is: /^av01\./, name: "AV1" },
  { is: /^(mp4v|V_MPEG4\/ISO\/)/, name: "MPEG-4 (DivX, Xvid)", asks: "mp4v.20.240" },
  { is: /^(mp2v|V_MPEG[12]$)/, name: "MPEG-2", asks: "mp4v.61" },
  { is: /^(ap4[hx]|apc[hnos]|V_PRORES)/, name: "ProRes", asks: "apcn" },
  { is: /^(ac-3|A_AC3)/, name: "AC-3", asks: "ac-3" },
  { is: /^(ec-3|A_EAC3)/, name: "E-AC-3", asks: "ec-3" },
  { is: /^(dts[cehlx]|A_DTS)/, name: "DTS", asks: "dtsc" },
  { is: /^(mlpa|A_TRUEHD|A_MLP)/, name: "Dolby TrueHD", asks: "mlpa" },
  { is: /^(alac|A_ALAC)/, name: "Apple Lossless", asks: "alac" },
  { is: /^(samr|sawb)$/, name: "AMR" },
];

/** What WebM may hold: a browser that opens WebM may open an MKV with nothing else in it. */
const IN_WEBM = /^(vp8|vp9|vp09\..*|av01\..*|opus|vorbis)$/;

/** @param {string} type */
function bare(type) {
  return type.split(";")[0].trim().toLowerCase();
}

/**
 * The container that a file's name stands for; empty when it tells nothing.
 * @param {string} name
 */
function typeOfName(name) {
  return TYPES[/\.([a-z0-9]{2,4})$/i.exec(name)?.[1].toLowerCase() ?? ""] ?? "";
}

/**
 * Whether it is worth asking what is in a file before it is played. Of what Telegram has made other
 * qualities these play, whatever the file is.
 * @param {{name: string, mime_type: string, qualities?: number[]}} file
 * @param {Browser["canOpen"]} canOpen
 */
export function isDoubtful({ name, mime_type, qualities }, canOpen) {
  if (qualities?.length) {
    return false;
  }
  const types = [bare(mime_type), typeOfName(name)].filter((type) => /^(video|audio)\//.test(type));
  const isOdd = types.some((type) => /matroska/.test(type) || !canOpen(type));
  return isOdd || NEVER_OPENED.includes(NAMES[typeOfName(name)]);
}

/**
 * What people call the container: `AVI`; empty for one that all browsers open.
 * @param {Head | null} head
 * @param {{name: string, mime_type: string}} file
 */
function containerOf(head, { name, mime_type }) {
  // A head that tells of tracks was read; otherwise the post's own words are all there is.
  const types = head?.tracks.length
    ? [bare(head.type)]
    : [bare(head?.type ?? ""), typeOfName(name), bare(mime_type)];
  const type = types.find((each) => NAMES[each]);
  return type ? { type, name: NAMES[type] } : null;
}

/**
 * Why this browser cannot play the film, or not all of it; null when it can, or may.
 * @param {Head} head
 * @param {{name: string, mime_type: string}} file
 * @param {Browser} browser
 * @returns {Promise<string | null>} in plain words
 */
export async function findObstacle(head, file, browser) {
  const container = containerOf(head, file);
  if (container && !browser.canOpen(container.type) && isNeverOpened(container.name, head)) {
    return `Your browser cannot open ${container.name} files.`;
  }
  const picture = await lackedOf("video", head, browser);
  const sound = await lackedOf("audio", head, browser);
  return describeLack(picture, sound, head);
}

/**
 * After the film was tried and did not play.
 * @param {Head | null} head null when nobody could tell
 * @param {{name: string, mime_type: string}} file
 * @param {Browser} browser
 */
export async function findFault(head, file, browser) {
  const obstacle = head && (await findObstacle(head, file, browser));
  const container = containerOf(head, file);
  if (obstacle || !container || browser.canOpen(container.type)) {
    return obstacle;
  }
  return `Your browser cannot open ${container.name} files.`;
}

/**
 * @param {string} name
 * @param {Head} head
 */
function isNeverOpened(name, { tracks }) {
  const isNoWebm = tracks.some(({ kind, codec }) => kind !== "text" && !IN_WEBM.test(codec));
  return NEVER_OPENED.includes(name) || (name === "MKV" && isNoWebm);
}

/**
 * The codecs of this kind that the browser lacks, if it lacks all of them: with one that it knows
 * it plays that one.
 * @param {"video" | "audio"} kind
 * @param {Head} head
 * @param {Browser} browser
 * @returns {Promise<string[]>}
 */
async function lackedOf(kind, { tracks }, browser) {
  const names = [];
  for (const { codec } of tracks.filter((track) => track.kind === kind)) {
    const known = LACKED.find(({ is }) => is.test(codec));
    if (!known || (await browser.canDecode(known.asks ?? codec, kind))) {
      return [];
    }
    names.push(known.name);
  }
  return [...new Set(names)];
}

/**
 * @param {string[]} picture
 * @param {string[]} sound
 * @param {Head} head
 */
function describeLack(picture, sound, { tracks }) {
  const has = (/** @type {string} */ kind) => tracks.some((track) => track.kind === kind);
  const missing = [
    ...picture.slice(0, 2).map((name) => `${name} pictures`),
    ...sound.slice(0, 2).map((name) => `${name} sound`),
  ];
  if (missing.length === 0) {
    return null;
  }
  const lack = `Your browser has no decoder for ${missing.join(" or ")}.`;
  if (picture.length === 0 && has("video")) {
    return `${lack} The picture would play without sound.`;
  }
  return sound.length === 0 && has("audio") ? `${lack} Only the sound would play.` : lack;
}
