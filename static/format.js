// Puts numbers and names into words. Pure: no page, no network.

const UNITS = ["B", "KB", "MB", "GB", "TB"];
const number = new Intl.NumberFormat("en"); // as the words around it
const day = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "short" });
const dayOfYear = new Intl.DateTimeFormat(undefined, {
  day: "numeric",
  month: "short",
  year: "numeric",
});

/**
 * `1:02:03`, or `2:03` below an hour.
 * @param {number | null} seconds
 */
export function formatDuration(seconds) {
  if (!seconds || seconds < 0) {
    return "";
  }
  const whole = Math.max(1, Math.round(seconds));
  const parts = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const shown = parts[0] > 0 ? parts : parts.slice(1);
  return shown.map((part, index) => String(part).padStart(index ? 2 : 1, "0")).join(":");
}

/**
 * `1.4 GB`: decimal units, as file managers and Telegram show them.
 * @param {number} bytes
 */
export function formatSize(bytes) {
  let value = bytes;
  let unit = 0;
  while (value >= 999.5 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  const digits = unit > 1 && value < 10 ? 1 : 0;
  return `${value.toFixed(digits)} ${UNITS[unit]}`;
}

/**
 * `1 file`, `12,345 files`.
 * @param {number} count
 * @param {string} noun
 */
export function formatCount(count, noun) {
  return `${number.format(count)} ${noun}${count === 1 ? "" : "s"}`;
}

/**
 * `3 Nov`, with the year unless it is this one.
 * @param {number} unixSeconds
 * @param {Date} [now]
 */
export function formatDate(unixSeconds, now = new Date()) {
  const date = new Date(unixSeconds * 1000);
  return (date.getFullYear() === now.getFullYear() ? day : dayOfYear).format(date);
}

/**
 * A file's name as a person would write it: no extension, no underscores or dots for spaces. Names
 * that Telegram or the worker made up (`photo_12.jpg`) give way to what the person wrote, and a song
 * that knows its title is called by that.
 * @param {import("./api.js").MediaFile} file
 */
export function formatTitle(file) {
  if (file.title) {
    return file.title;
  }
  const stem = file.name.replace(/\.[a-z0-9]{1,5}$/i, "");
  const spaced = (/\s/.test(stem) ? stem : stem.replace(/[._]+/g, " ")).trim();
  const isMadeUp = !spaced || /^(photo|video)_[\d_-]+$/.test(stem);
  const written = file.caption.trim().split("\n")[0].slice(0, 120);
  return (isMadeUp && written) || spaced || `Post ${file.message_id}`;
}

/**
 * `MKV`, for a badge; empty when the name has no extension.
 * @param {string} name
 */
export function formatExtension(name) {
  return (/\.([a-z0-9]{1,5})$/i.exec(name)?.[1] ?? "").toUpperCase();
}

const SPLIT_NOTES = {
  alone: "the other parts are missing",
  twice: "some parts are there twice",
  order: "the parts are not in order",
  unclear: "whose parts these are is unclear",
  too_many: "too many parts",
};

/**
 * Why a part of a split film is not part of a film.
 * @param {import("./api.js").MediaFile["split"]} split
 */
function formatSplit(split) {
  if (split?.problem === "missing") {
    const { missing } = split;
    return missing.length === 1
      ? `part ${missing[0]} is missing`
      : `parts ${missing.join(", ")} are missing`;
  }
  return split ? (SPLIT_NOTES[/** @type {keyof typeof SPLIT_NOTES} */ (split.problem)] ?? "") : "";
}

/**
 * The line under a title: what is wrong with a part, resolution, size, date.
 * @param {import("./api.js").MediaFile} file
 * @param {{resolution?: boolean}} [options]
 */
export function formatFacts(file, { resolution = false } = {}) {
  const measures = file.width && file.height ? `${file.width} × ${file.height}` : "";
  const facts = [
    formatSplit(file.split),
    resolution ? measures : "",
    formatSize(file.size),
    formatDate(file.date),
  ];
  return facts.filter(Boolean).join(" · ");
}
