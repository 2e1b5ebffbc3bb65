// A file whole, or its beginning, from the first worker that gives it.

import { signUrl } from "./api.js";
import { Failures } from "./workers.js";

const ATTEMPTS = 3; // of workers, each of them once

/**
 * What `take` makes of the file's URL, at one worker after another until one gives it.
 * @template T
 * @param {string} id of the file
 * @param {(url: string) => Promise<T>} take
 * @param {{fromWorker?: boolean, signal?: AbortSignal}} [options] `fromWorker`: even a small file
 * @returns {Promise<T>} rejected, with what the last worker said, when none gives it
 */
export async function fromFirstWorker(id, take, { fromWorker = false, signal } = {}) {
  const failures = new Failures();
  const first = fromWorker ? 1 : 0; // the gallery hands out small files only at the first attempt
  for (let attempt = 1; ; attempt += 1) {
    const { url } = await signUrl(id, failures.query(first + attempt - 1));
    try {
      return await take(url);
    } catch (error) {
      if (signal?.aborted || !failures.note(url) || attempt === ATTEMPTS) {
        throw error;
      }
    }
  }
}
