// The subtitles that were posted with a film, as tracks of whatever element plays it now. What
// somebody chose, a language or none, is kept by this browser and chosen again for the next film.

const KEY = "rangegram.subtitles";
const OFF = "off";
const NOTE_MS = 1_800;

/**
 * As the gallery lists them.
 * @typedef {object} Subtitle
 * @property {string} label
 * @property {string} language a BCP 47 tag; `und` when nobody knows
 * @property {boolean} forced only what is said or written in another language than the film's
 * @property {string} url
 */

/** @typedef {{language: string, label: string, forced: boolean} | "off"} Choice */

/**
 * The place in the list of what was chosen before: the very same, or the same language; -1 for none.
 * @param {Subtitle[]} subtitles
 * @param {Choice | null} choice
 */
export function placeOf(subtitles, choice) {
  if (choice === null || choice === OFF) {
    return -1;
  }
  const { language, label, forced } = choice;
  const family = familyOf(language);
  /** @type {((each: Subtitle) => boolean)[]} the closest first */
  const likenesses = [
    (each) => each.language === language && each.label === label,
    (each) => family !== "" && each.language === language && each.forced === forced,
    (each) => family !== "" && familyOf(each.language) === family && each.forced === forced,
  ];
  for (const isAlike of likenesses) {
    const place = subtitles.findIndex(isAlike);
    if (place >= 0) {
      return place;
    }
  }
  return -1;
}

/** `pt` of `pt-BR`; empty when nobody knows the language. @param {string} tag */
function familyOf(tag) {
  return tag.toLowerCase().split("-")[0].replace("und", "");
}

/**
 * What to show when somebody wants subtitles and never chose any: their own language, or the first.
 * @param {Subtitle[]} subtitles
 * @param {readonly string[]} languages
 */
export function firstPlace(subtitles, languages) {
  for (const language of languages) {
    const place = placeOf(subtitles, { language, label: "", forced: false });
    if (place >= 0) {
      return place;
    }
  }
  const whole = subtitles.findIndex(({ forced }) => !forced);
  return subtitles.length > 0 ? Math.max(0, whole) : -1;
}

/**
 * What is said of the subtitles within the file: browsers do not show those.
 * @param {{kind: string, language: string, name: string}[]} tracks
 * @returns {string} empty when there are none
 */
export function describeEmbedded(tracks) {
  const names = tracks
    .filter(({ kind }) => kind === "text")
    .map(({ language, name }) => name || languageName(language) || "unnamed");
  const distinct = [...new Set(names)].slice(0, 6);
  return distinct.length > 0
    ? `Inside the file, shown by players such as VLC: ${distinct.join(", ")}.`
    : "";
}

/** @param {string} tag such as `ger` or `pt-BR` */
function languageName(tag) {
  try {
    return new Intl.DisplayNames("en", { type: "language" }).of(tag) ?? "";
  } catch {
    return ""; // no such tag
  }
}

/** @returns {Choice | null} null: nobody chose anything yet */
function recall() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "null");
    return kept === OFF || typeof kept?.language === "string" ? kept : null;
  } catch {
    return null; // storage is off, or something else wrote there
  }
}

/** @param {Choice} choice */
function remember(choice) {
  try {
    localStorage.setItem(KEY, JSON.stringify(choice));
  } catch {
    return; // storage is off or full: it is chosen again, as everywhere
  }
}

/**
 * Where subtitles are chosen beside the browser's own menu, if the page has such a place.
 * @typedef {object} Menu
 * @property {HTMLElement} section
 * @property {HTMLElement} chips
 * @property {HTMLElement} note
 */

/**
 * @typedef {object} Surroundings
 * @property {HTMLElement} stage holds the film; another element may take the film's place in it
 * @property {() => HTMLMediaElement | null} media the one that plays now
 * @property {() => Promise<Subtitle[]>} list
 * @property {Menu} [menu]
 * @property {AbortSignal} signal the end of it
 */

export class Subtitles {
  #media;
  #menu;
  #signal;
  /** @type {Subtitle[]} */
  #subtitles = [];
  #embedded = "";
  /** @type {Choice | null} */
  #choice = recall();
  /** For switching them on again. @type {Choice | null} */
  #lastShown = this.#choice;
  #shown = -1;
  /** Elements whose tracks are listened to. @type {WeakSet<HTMLMediaElement>} */
  #heard = new WeakSet();
  #note = document.createElement("p");
  #noteTimer = 0;

  /** @param {Surroundings} around */
  constructor({ stage, media, list, menu, signal }) {
    this.#media = media;
    this.#menu = menu;
    this.#signal = signal;
    this.#note.className = "film-note";
    this.#note.setAttribute("role", "status");
    stage.append(this.#note);
    // Events of a film do not bubble, but they are seen on their way down to it. One that is to
    // take the film's place gets its tracks here, before its turn.
    stage.addEventListener(
      "loadedmetadata",
      (event) => this.#dress(/** @type {HTMLMediaElement} */ (event.target)),
      { capture: true, signal },
    );
    signal.addEventListener("abort", () => this.#close(), { once: true });
    this.#drawMenu();
    void this.#load(list);
  }

  #close() {
    clearTimeout(this.#noteTimer);
    this.#note.remove();
    if (this.#menu) {
      this.#menu.section.hidden = true;
    }
  }

  /** @param {() => Promise<Subtitle[]>} list */
  async #load(list) {
    // An extra: a film whose subtitles cannot be had plays without.
    const subtitles = await list().catch(() => []);
    const media = this.#media();
    if (this.#signal.aborted || subtitles.length === 0) {
      return;
    }
    this.#subtitles = subtitles;
    this.#shown = placeOf(subtitles, this.#choice);
    if (media) {
      this.#dress(media);
    }
    this.#drawMenu();
  }

  /**
   * Name the subtitles within the file, which only other players show.
   * @param {{kind: string, language: string, name: string}[]} tracks
   */
  tellEmbedded(tracks) {
    this.#embedded = describeEmbedded(tracks);
    this.#drawMenu();
  }

  /** On, as they were chosen last, or off. */
  toggle() {
    if (this.#subtitles.length === 0) {
      this.#say(this.#embedded || "This film has no subtitles.");
    } else if (this.#shown >= 0) {
      this.#choose(-1);
    } else {
      const before = placeOf(this.#subtitles, this.#lastShown);
      this.#choose(before >= 0 ? before : firstPlace(this.#subtitles, navigator.languages));
    }
  }

  /** @param {number} place -1 for none */
  #choose(place) {
    this.#keep(place);
    const media = this.#media();
    if (media) {
      this.#apply(media);
    }
    this.#say(place < 0 ? "Subtitles off" : `Subtitles: ${nameOf(this.#subtitles[place])}`);
  }

  /** @param {number} place -1 for none */
  #keep(place) {
    this.#shown = place;
    if (place >= 0) {
      const { language, label, forced } = this.#subtitles[place];
      this.#lastShown = this.#choice = { language, label, forced };
    } else {
      this.#choice = OFF;
    }
    remember(this.#choice);
    this.#tickMenu();
  }

  // The tracks of an element -------------------------------------------------------------------

  /** Give an element the tracks, unless it has them. @param {HTMLMediaElement} media */
  #dress(media) {
    if (this.#subtitles.length === 0) {
      return;
    }
    if (tracksOf(media).length === 0) {
      media.append(...this.#subtitles.map(makeTrack));
    }
    if (!this.#heard.has(media)) {
      this.#heard.add(media);
      const listener = () => this.#onChange(media);
      media.textTracks.addEventListener("change", listener, { signal: this.#signal });
    }
    this.#apply(media);
  }

  /** @param {HTMLMediaElement} media */
  #apply(media) {
    if (this.#choice === null) {
      return; // nobody chose: what the browser's own settings say holds
    }
    for (const [place, { track }] of tracksOf(media).entries()) {
      const mode = place === this.#shown ? "showing" : "disabled";
      if (track.mode !== mode) {
        track.mode = mode;
      }
    }
  }

  /** By the browser's own menu. @param {HTMLMediaElement} media */
  #onChange(media) {
    const isReloading = media.readyState === 0 || media.error !== null;
    if (media !== this.#media() || isReloading) {
      return;
    }
    const ours = tracksOf(media).map(({ track }) => track);
    const others = [...media.textTracks].filter((track) => !ours.includes(track));
    const place = ours.findIndex(({ mode }) => mode === "showing");
    if (place === this.#shown || (place < 0 && others.some(({ mode }) => mode === "showing"))) {
      return;
    }
    this.#keep(place);
  }

  // The menu and the word about it ---------------------------------------------------------------

  #drawMenu() {
    if (!this.#menu) {
      return;
    }
    const { section, chips, note } = this.#menu;
    section.hidden = this.#subtitles.length === 0 && this.#embedded === "";
    note.textContent = this.#embedded;
    note.hidden = this.#embedded === "";
    const names = this.#subtitles.length > 0 ? ["Off", ...this.#subtitles.map(nameOf)] : [];
    chips.replaceChildren(...names.map((name, index) => this.#chip(name, index - 1)));
    this.#tickMenu();
  }

  #tickMenu() {
    const inputs = this.#menu?.chips.querySelectorAll("input") ?? [];
    for (const [index, input] of inputs.entries()) {
      input.checked = index - 1 === this.#shown;
    }
  }

  /**
   * @param {string} name
   * @param {number} place
   */
  #chip(name, place) {
    const label = document.createElement("label");
    label.className = "chip";
    const input = document.createElement("input");
    input.type = "radio";
    input.name = "subtitles";
    input.addEventListener("change", () => this.#choose(place));
    const text = document.createElement("span");
    text.textContent = name;
    label.append(input, text);
    return label;
  }

  /** @param {string} text */
  #say(text) {
    clearTimeout(this.#noteTimer);
    this.#note.textContent = text;
    this.#noteTimer = window.setTimeout(() => {
      this.#note.textContent = "";
    }, NOTE_MS);
  }
}

/** @param {HTMLMediaElement} media */
function tracksOf(media) {
  return [...media.querySelectorAll("track")];
}

/** @param {Subtitle} subtitle */
function makeTrack({ label, language, url }) {
  const track = document.createElement("track");
  track.kind = "subtitles";
  track.label = label;
  track.srclang = language;
  track.src = url;
  return track;
}

/** @param {Subtitle} subtitle */
function nameOf({ label, language }) {
  return label || languageName(language) || "Subtitles";
}
