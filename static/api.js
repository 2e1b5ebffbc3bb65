// Talks to the backend: JSON in, one kind of error out.

import { isPassing, parseRetryAfter } from "./trouble.js";

/**
 * One file of a channel, as `/api/files` describes it.
 * @typedef {object} MediaFile
 * @property {number} chat_id
 * @property {number} message_id
 * @property {string} name
 * @property {"video" | "image" | "audio" | "document"} kind
 * @property {string} mime_type
 * @property {number} size in bytes
 * @property {number} date in Unix seconds
 * @property {number | null} duration in seconds
 * @property {number | null} width
 * @property {number | null} height
 * @property {string} caption
 * @property {string | null} thumbnail a URL at the worker
 * @property {string | null} title of a piece of music
 * @property {string | null} performer
 * @property {string | null} album equal for all files of an album
 * @property {number[]} qualities heights of those that Telegram has made of a film
 * @property {boolean} has_storyboard
 * @property {{problem: string, missing: number[]} | null} [split] why a part stands by itself
 * @property {number[]} [album_files] the posts of its album, where one file was asked for
 */

/** @typedef {{state: "reading" | "ready", files: number, messages_read: number}} IndexState */
/** @typedef {{files: MediaFile[], next: string | null, total: number, index: IndexState}} FilePage */
/** @typedef {{query: string, kind: string, channel: string, sort: string}} Filter */
/** @typedef {{chat_id: number, title: string, files: number}} Channel */

/**
 * A link to one file for people without a password.
 * @typedef {object} Share
 * @property {string} id
 * @property {number} chat_id
 * @property {number} message_id
 * @property {string} url the file itself, for players and pages
 * @property {string} watch_url a page for people
 * @property {string} m3u_url
 * @property {string} media_code HTML with the file in the element that shows it
 * @property {string} embed_code HTML with the player in a frame
 * @property {number | null} expires_at in Unix seconds, null for never
 * @property {boolean} [revoked]
 */

/** Why there is no answer. `code` is the backend's, or `offline` when it could not be asked. */
export class ApiError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {number} status
   * @param {number} retryAfter seconds the server asks to wait, 0 when it does not say
   */
  constructor(code, message, status = 0, retryAfter = 0) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfter = retryAfter;
  }

  /** Whether asking again later can help. */
  get isPassing() {
    return isPassing(this.status);
  }

  /** Whether it is the form of the file that this browser cannot play. */
  get isForm() {
    return this.code === "not_playable" || this.code === "not_decoded";
  }
}

/**
 * Turn an error answer, ours or the worker's, into an ApiError.
 * @param {Response} response
 */
export async function errorFrom(response) {
  const retryAfter = parseRetryAfter(response.headers.get("Retry-After"));
  const body = await response.json().catch(() => null);
  const { code = "unknown", message = `The server answered ${response.status}.` } =
    body?.error ?? {};
  return new ApiError(code, message, response.status, retryAfter);
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
async function getJson(path, signal) {
  return (await getAnswer(path, signal)).body;
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 * @returns {Promise<{body: any, date: number}>} the date in Unix seconds
 */
async function getAnswer(path, signal) {
  const response = await ask(path, { signal });
  const date = Date.parse(response.headers.get("Date") ?? "") || Date.now();
  return { body: await response.json(), date: date / 1000 };
}

/**
 * @param {string} path
 * @param {RequestInit} options
 * @returns {Promise<Response>} a good one
 */
async function ask(path, { signal, ...options }) {
  let response;
  try {
    const headers = { Accept: "application/json", ...options.headers };
    response = await fetch(path, { ...options, signal, headers });
  } catch (error) {
    if (signal?.aborted) {
      throw error;
    }
    throw new ApiError("offline", "The gallery cannot be reached.");
  }
  if (response.status === 401) {
    const here = location.pathname + location.search;
    location.assign(`/sign-in?next=${encodeURIComponent(here)}`);
  }
  if (!response.ok) {
    throw await errorFrom(response);
  }
  return response;
}

/**
 * @param {Filter} filter
 * @param {string | null} cursor
 * @param {AbortSignal} [signal]
 * @returns {Promise<FilePage>}
 */
export function listFiles(filter, cursor, signal) {
  const given = Object.entries({ ...filter, cursor: cursor ?? "" }).filter(([, value]) => value);
  return getJson(`/api/files?${new URLSearchParams(given)}`, signal);
}

/** @returns {Promise<Channel[]>} */
export async function listChannels() {
  return (await getJson("/api/channels")).channels;
}

/**
 * Something wrong with the settings of gallery or workers.
 * @typedef {object} Problem
 * @property {string} code
 * @property {"stops" | "limits" | "note"} severity `stops`: no film plays
 * @property {string} message
 * @property {string} what_to_do
 */

/** @typedef {{url: string, state: string, version: string | null}} WorkerState */

/** @returns {Promise<{workers: WorkerState[], problems: Problem[]}>} */
export function getState() {
  return getJson("/api/state");
}

/** @returns {Promise<{shares: Share[], durable: boolean}>} */
export function listShares() {
  return getJson("/api/shares");
}

/**
 * @param {MediaFile} file
 * @param {number | null} seconds until it ends, null for never
 * @returns {Promise<Share>}
 */
export async function createShare({ chat_id, message_id }, seconds) {
  const response = await ask("/api/shares", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ chat_id, message_id, expires_in_s: seconds }),
  });
  return response.json();
}

/** @param {string} id */
export async function revokeShare(id) {
  await ask(`/api/shares/${id}`, { method: "DELETE" });
}

/**
 * @param {string} id as `fileId` makes it
 * @param {string | null} [failed] the worker that failed to give its small picture
 * @returns {Promise<MediaFile>}
 */
export function getFile(id, failed = null) {
  const query = failed ? `?${new URLSearchParams({ avoid: failed })}` : "";
  return getJson(`/api/files/${id}${query}`);
}

/**
 * A URL that plays for an hour.
 * @param {string} id
 * @param {string} [failed] what failed before, as `Failures.query` says it
 * @returns {Promise<import("./player.js").SignedUrl>} lifetimes in seconds
 */
export async function signUrl(id, failed = "") {
  const { body, date } = await getAnswer(`/api/files/${id}/url?${failed}`);
  // By the server's clock at both ends: this machine's may be wrong.
  /** @param {{expires_at: number}} signed */
  const lifetimeOf = ({ expires_at }) => Math.max(1, expires_at - date);
  const { url, via, size, hls } = body;
  const signedHls = hls && { ...hls, lifetime: lifetimeOf(hls) };
  return { url, via, size, lifetime: lifetimeOf(body), hls: signedHls };
}

/**
 * The same for whoever holds a share link. The worker itself renews this URL for half a day.
 * @param {string} share
 * @param {string} [failed] as `Failures.query` says it
 * @returns {Promise<import("./player.js").SignedUrl>}
 */
export async function signShared(share, failed = "") {
  const { url, size, hls, lasts_s: lifetime } = await getJson(`/api/share/${share}/url?${failed}`);
  return { url, via: "worker", size, lifetime, hls: hls && { ...hls, lifetime } };
}

/**
 * Where the worker tells more of a film: good for an hour, as its URL is.
 * @param {string} id
 * @param {string} failed
 * @returns {Promise<import("./film-extras.js").Extras>}
 */
export function signExtras(id, failed) {
  return getJson(`/api/files/${id}/url?${failed}`);
}

/**
 * @param {string} share
 * @param {string} failed
 * @returns {Promise<import("./film-extras.js").Extras>}
 */
export function signSharedExtras(share, failed) {
  return getJson(`/api/share/${share}/url?${failed}`);
}

/**
 * @param {string} id
 * @returns {Promise<import("./subtitles.js").Subtitle[]>}
 */
export function listSubtitles(id) {
  return getJson(`/api/files/${id}/subtitles`);
}
