// Whether a person is there: a tab that nobody looks at asks for nothing.

const IDLE_MS = 5 * 60_000; // without a sign of a person
const SIGNS = ["pointermove", "pointerdown", "keydown", "wheel", "touchstart", "scroll", "focus"];

export class Presence {
  #seenAt = Date.now();
  #onReturn;

  /** @param {() => void} onReturn the person is back after being away */
  constructor(onReturn) {
    this.#onReturn = onReturn;
    for (const name of SIGNS) {
      addEventListener(name, () => this.#see(), { passive: true, capture: true });
    }
    document.addEventListener("visibilitychange", () => {
      if (document.hidden) {
        this.#seenAt = 0; // whoever looks elsewhere is not here
      } else {
        this.#see();
      }
    });
  }

  get isThere() {
    return !document.hidden && Date.now() - this.#seenAt < IDLE_MS;
  }

  #see() {
    if (document.hidden) {
      return;
    }
    const wasThere = this.isThere;
    this.#seenAt = Date.now();
    if (!wasThere) {
      this.#onReturn();
    }
  }
}
