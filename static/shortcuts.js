// Which key does what in the viewer, in one place for the code and for the help sheet. Pure.

/**
 * @typedef {"toggle" | "back10" | "forward10" | "back5" | "forward5" | "louder" | "quieter" |
 *   "fullscreen" | "mute" | "stats" | "slower" | "faster" | "next" | "previous" | "help" |
 *   "share" | "zoomIn" | "zoomOut" | "zoomReset" | "jump" | "captions"} Action
 */

/** @type {Record<string, Action>} */
const FOR_ALL = { n: "next", p: "previous", f: "fullscreen", s: "share", "?": "help" };

/** @type {Record<string, Action>} */
const FOR_MEDIA = {
  " ": "toggle",
  k: "toggle",
  j: "back10",
  l: "forward10",
  ArrowLeft: "back5",
  ArrowRight: "forward5",
  ArrowUp: "louder",
  ArrowDown: "quieter",
  m: "mute",
  c: "captions",
  i: "stats",
  "<": "slower",
  ">": "faster",
};

/** @type {Record<string, Action>} */
const FOR_OTHERS = {
  ArrowLeft: "previous",
  ArrowRight: "next",
  "+": "zoomIn",
  "=": "zoomIn",
  "-": "zoomOut",
  0: "zoomReset",
};

/**
 * What the key is for; undefined when it is not ours.
 * @param {string} key as KeyboardEvent has it
 * @param {boolean} isMedia whether a film or music is open
 * @returns {Action | undefined}
 */
export function actionOf(key, isMedia) {
  const name = key.length === 1 ? key.toLowerCase() : key;
  if (isMedia && /^\d$/.test(name)) {
    return "jump";
  }
  return FOR_ALL[name] ?? (isMedia ? FOR_MEDIA : FOR_OTHERS)[name];
}

/** What the help sheet says, in its order. @type {[keys: string[], text: string][]} */
export const HELP = [
  [["Space", "K"], "Play or pause"],
  [["J", "L"], "Back or forward 10 s"],
  [["←", "→"], "Back or forward 5 s; the next picture"],
  [["↑", "↓"], "Louder or quieter"],
  [["0", "…", "9"], "Jump to a tenth of the film"],
  [["<", ">"], "Slower or faster"],
  [["M"], "Sound off or on"],
  [["C"], "Subtitles on or off"],
  [["F"], "Full screen"],
  [["+", "-"], "Zoom a picture"],
  [["N", "P"], "Next or previous file"],
  [["S"], "Share"],
  [["I"], "Statistics"],
  [["Esc"], "Back to the gallery"],
];
