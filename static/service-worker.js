// Stands between the page's <video> and the worker, so that a film never stops: the element keeps
// its one `src`, and what that URL no longer gives is fetched with a fresh one. All else passes by.

import { openLasting } from "/static/lasting-stream.js";
import { Failures } from "/static/workers.js";

/** @typedef {import("/static/trouble.js").Trouble} Trouble */
/** @typedef {Event & {waitUntil(work: Promise<unknown>): void}} LifeEvent */
/** @typedef {Event & {request: Request, clientId: string, respondWith(answer: Promise<Response>): void}} FetchEvent */
/** @typedef {{postMessage(message: unknown): void}} Client */
/** @typedef {{skipWaiting(): Promise<void>, clients: {claim(): Promise<void>, get(id: string): Promise<Client | undefined>}}} Self */

const REMEMBERED_MAX = 100; // fresh URLs; whoever is forgotten costs one refused request
const COUNT_EVERY_MS = 500;

const worker = /** @type {Self} */ (/** @type {unknown} */ (self));

/** The newest URL in place of the one a player was given. @type {Map<string, string>} */
const fresh = new Map();
/** Renewals under way. @type {Map<string, Promise<string>>} */
const renewals = new Map();
const failures = new Failures();
let tellNews = () => {};
/** For the next time that a page says that a worker has woken up. @type {Promise<void>} */
let news = awaitNews();

self.addEventListener("install", () => void worker.skipWaiting());
self.addEventListener("activate", (event) => {
  const lifeEvent = /** @type {LifeEvent} */ (event);
  lifeEvent.waitUntil(worker.clients.claim());
});
// The page says "stay" while a film is open. Hearing it is enough to be kept alive.
self.addEventListener("message", (event) => {
  if (/** @type {MessageEvent} */ (event).data === "awake") {
    tellNews();
  }
});
self.addEventListener("fetch", (event) => {
  const fetchEvent = /** @type {FetchEvent} */ (event);
  const file = filmOf(fetchEvent.request);
  if (file) {
    fetchEvent.respondWith(answer(fetchEvent.request, file, fetchEvent.clientId));
  }
});

/** @returns {Promise<void>} */
function awaitNews() {
  return new Promise((resolve) => {
    tellNews = () => {
      resolve();
      news = awaitNews();
    };
  });
}

/**
 * `chat/message` when a player of ours asks a worker for a film; only such answers can be read.
 * @param {Request} request
 */
function filmOf({ method, mode, destination, url }) {
  const { origin, pathname } = new URL(url);
  const isPlayer = destination === "video" || destination === "audio";
  const isOurs = method === "GET" && mode === "cors" && isPlayer && origin !== location.origin;
  return isOurs ? /\/stream\/(-?\d+\/\d+)(\/|$)/.exec(pathname)?.[1] : undefined;
}

/**
 * @param {Request} request
 * @param {string} file
 * @param {string} clientId
 */
function answer({ url, headers, signal }, file, clientId) {
  const page = new Page(clientId, file);
  return openLasting(
    { url, range: headers.get("Range"), signal },
    {
      fetch: (address, options) => fetch(address, options),
      freshest: (address) => fresh.get(address) ?? address,
      renew: (address, stale, attempt) => renew(file, address, stale, attempt),
      fail: (address) => failures.note(address),
      hasFailed: (address) => failures.has(address),
      tell: (trouble) => page.say({ trouble }),
      count: (bytes) => page.count(bytes),
      news: () => news,
    },
  );
}

/**
 * Ask the gallery for a fresh URL of the file; those who ask together share one.
 * @param {string} file
 * @param {string} url
 * @param {string} stale
 * @param {number} attempt
 * @returns {Promise<string>}
 */
function renew(file, url, stale, attempt) {
  const known = fresh.get(url) ?? url;
  if (known !== stale) {
    return Promise.resolve(known);
  }
  const underWay = renewals.get(url) ?? fetchUrl(file, attempt).finally(() => renewals.delete(url));
  renewals.set(url, underWay);
  return underWay.then((newer) => {
    fresh.delete(url); // to the end of the queue
    fresh.set(url, newer);
    for (const oldest of [...fresh.keys()].slice(0, -REMEMBERED_MAX)) {
      fresh.delete(oldest);
    }
    return newer;
  });
}

/**
 * @param {string} file
 * @param {number} attempt
 * @returns {Promise<string>}
 */
async function fetchUrl(file, attempt) {
  const query = failures.query(attempt);
  const response = await fetch(`/api/files/${file}/url?${query}`, { cache: "no-store" });
  if (!response.ok) {
    throw new TypeError(`The gallery answered ${response.status}.`);
  }
  return (await response.json()).url;
}

/** The page that plays the film, told what it cannot see itself. */
class Page {
  #bytes = 0;
  #saidAt = Date.now();

  /**
   * @param {string} clientId
   * @param {string} file
   */
  constructor(clientId, file) {
    this.clientId = clientId;
    this.file = file;
  }

  /** @param {number} bytes */
  count(bytes) {
    this.#bytes += bytes;
    if (Date.now() - this.#saidAt >= COUNT_EVERY_MS) {
      this.say({ bytes: this.#bytes });
      this.#bytes = 0;
      this.#saidAt = Date.now();
    }
  }

  /** @param {{trouble: Trouble | null} | {bytes: number}} message */
  say(message) {
    void worker.clients
      .get(this.clientId)
      .then((client) => client?.postMessage({ file: this.file, ...message }));
  }
}
