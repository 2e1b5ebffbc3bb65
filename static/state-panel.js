// What is set up wrong, as the gallery's server finds it: a small mark in the header and a panel
// behind it. Only what stops films from playing opens the panel by itself, and that once.

import { ApiError, getState } from "./api.js";
import { clone, element } from "./page.js";

/** @typedef {import("./api.js").Problem} Problem */
/** @typedef {import("./api.js").WorkerState} WorkerState */

const LEADS = {
  stops: "Films cannot play until this is mended.",
  limits: "Films play. This keeps something else from working as it should.",
  note: "All is well. One thing to know:",
};
const WELL = "All is well.";
const LOOK_AGAIN_S = 5; // while films cannot play, so that the panel says when they can
const UNREACHABLE_S = 20; // the gallery itself does not answer, and the list says so

/**
 * When to look again, in seconds; null when there is no reason to.
 * @param {{workers: {state: string}[], problems: {severity: string}[]}} state
 */
export function nextLookIn({ workers, problems }) {
  const isWaiting = workers.some(({ state }) => state === "waking");
  const isStopped = problems.some(({ severity }) => severity === "stops");
  return isWaiting || isStopped ? LOOK_AGAIN_S : null;
}

/**
 * Whether a worker may yet wake up, or is awake: of one that is not there nobody need wait.
 * @param {{state: string}[]} workers
 */
export function isWorthWaitingFor(workers) {
  return workers.some(({ state }) => state !== "wrong" && state !== "away");
}

export class StatePanel {
  #mark = element("state-mark", HTMLButtonElement);
  #panel = element("state", HTMLElement);
  #lead = element("state-lead", HTMLElement);
  #list = element("state-list", HTMLElement);
  #onState;
  #mayLook;
  #timer = 0;
  /** Those that the panel has opened for. @type {Set<string>} */
  #announced = new Set();

  /**
   * @param {(workers: WorkerState[]) => void} onState
   * @param {() => boolean} mayLook whether somebody is there to see it
   */
  constructor(onState, mayLook) {
    this.#onState = onState;
    this.#mayLook = mayLook;
    this.#panel.addEventListener("toggle", (event) => {
      if (/** @type {ToggleEvent} */ (event).newState === "open") {
        void this.look();
      }
    });
  }

  /** Ask, show, and ask again while there is something to wait for. */
  async look() {
    clearTimeout(this.#timer);
    try {
      const state = await getState();
      this.#show(state.problems);
      this.#onState(state.workers);
      const seconds = nextLookIn(state);
      if (seconds !== null) {
        this.#lookIn(seconds);
      }
    } catch (error) {
      if (!(error instanceof ApiError)) {
        throw error;
      }
      this.#lookIn(UNREACHABLE_S);
    }
  }

  /** @param {number} seconds */
  #lookIn(seconds) {
    clearTimeout(this.#timer);
    this.#timer = window.setTimeout(() => {
      if (this.#mayLook()) {
        void this.look(); // whoever comes back looks again anyway
      }
    }, seconds * 1000);
  }

  /** @param {Problem[]} problems the worst first */
  #show(problems) {
    const worst = problems[0]?.severity;
    this.#mark.hidden = worst === undefined;
    this.#mark.dataset.severity = worst ?? "";
    this.#mark.title = worst ? LEADS[worst] : WELL;
    this.#mark.setAttribute("aria-label", `How things are set up: ${this.#mark.title}`);
    this.#lead.textContent = this.#mark.title;
    this.#list.replaceChildren(...problems.map(entryOf));
    const stopping = problems.filter(({ severity }) => severity === "stops");
    const isNews = stopping.some(({ code }) => !this.#announced.has(code));
    this.#announced = new Set(stopping.map(({ code }) => code));
    // A film that is open says itself what it waits for, and nothing opens over it.
    if (
      isNews &&
      !document.querySelector("dialog[open]") &&
      !this.#panel.matches(":popover-open")
    ) {
      this.#panel.showPopover();
    }
  }
}

/** @param {Problem} problem */
function entryOf({ severity, message, what_to_do: advice }) {
  const entry = clone("state-template");
  entry.dataset.severity = severity;
  /** @type {(name: string, text: string) => void} */
  const fill = (name, text) => {
    /** @type {HTMLElement} */ (entry.querySelector(`.state-${name}`)).textContent = text;
  };
  fill("message", message);
  fill("advice", advice);
  return entry;
}
