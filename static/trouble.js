// What went wrong: whether waiting helps, for how long, and how a person is told. Pure.

const FIRST_DELAY_MS = 400;
const LONGEST_DELAY_MS = 4_000;
const PASSING_STATUSES = [408, 425, 429, 500, 502, 503, 504];

/**
 * @typedef {object} Trouble
 * @property {string} code the server's, or `offline` when it could not be asked
 * @property {number} status 0 when it could not be asked
 * @property {number} retryAfter seconds the server asks to wait, 0 when it does not say
 */

/**
 * Whether asking again later can help.
 * @param {number} status
 */
export function isPassing(status) {
  return status === 0 || PASSING_STATUSES.includes(status);
}

/**
 * How long to wait after a failed attempt: longer each time, never in step with other viewers, and
 * not shorter than the server asks for.
 * @param {number} attempt counted from 0
 * @param {number} [retryAfter] in seconds
 * @param {number} [chance] from 0 to 1
 * @returns {number} milliseconds
 */
export function delayAfter(attempt, retryAfter = 0, chance = Math.random()) {
  const backOff = Math.min(FIRST_DELAY_MS * 2 ** attempt, LONGEST_DELAY_MS);
  return Math.max(retryAfter * 1000, backOff * (0.75 + chance / 2));
}

/**
 * The Retry-After header in seconds: it is a number of seconds or a date.
 * @param {string | null} header
 * @param {number} [now] in Unix milliseconds
 */
export function parseRetryAfter(header, now = Date.now()) {
  const text = header ?? "";
  if (/^\d+$/.test(text)) {
    return Number(text);
  }
  // Date.parse makes a date of almost anything; an HTTP date ends with its time zone.
  return / GMT$/.test(text) ? Math.max(0, (Date.parse(text) - now) / 1000) || 0 : 0;
}

/**
 * Why the film does not move, in a few words.
 * @param {Trouble} trouble
 * @param {boolean} [isOnline] whether this machine has any network
 */
export function describeTrouble({ code, status, retryAfter }, isOnline = true) {
  if (code === "flood_wait" || retryAfter > 5) {
    return `Telegram asks to wait ${Math.ceil(retryAfter)} s…`;
  }
  if (!isOnline) {
    return "No connection. It goes on when the connection is back…";
  }
  // A host's gateway answers so, without JSON, while the process behind it is started.
  const isAsleep = code === "unknown" && [502, 503, 504].includes(status);
  return isAsleep || code === "worker_unreachable" ? "Waking the worker…" : "Reconnecting…";
}
