// The gallery page: search and kinds decide the list, the address bar decides what is open.

import { ApiError, listFiles } from "./api.js";
import { Grid } from "./grid.js";
import { startGuard } from "./guard.js";
import { element } from "./page.js";
import { Viewer } from "./viewer.js";

/** @typedef {import("./api.js").Filter} Filter */
/** @typedef {import("./api.js").FilePage} FilePage */

const TYPING_PAUSE_MS = 140;
const LOOK_AGAIN_MS = 20_000; // new posts show up without a reload
const READING_MS = 1_500; // and faster while the backend reads a channel's history
const AHEAD = "900px"; // how far above the end of the grid the next page is fetched
const OFFLINE_DELAY_S = 5;

const list = element("grid", HTMLElement);
const searchForm = element("search", HTMLFormElement);
const queryInput = element("query", HTMLInputElement);
const kinds = element("kinds", HTMLElement);
const summary = element("summary", HTMLElement);
const notice = {
  box: element("notice", HTMLElement),
  title: element("notice-title", HTMLElement),
  text: element("notice-text", HTMLElement),
  action: element("notice-action", HTMLButtonElement),
};

const grid = new Grid(list);
const viewer = new Viewer(leaveViewer);
/** @type {string | null} */
let nextCursor = null;
let loading = new AbortController();
let isLoadingMore = false;
let timer = 0;
let noticeAction = () => {};

// What the address bar says -------------------------------------------------------------------

/** @returns {Filter & {file: string}} */
function readAddress() {
  const query = new URLSearchParams(location.search);
  const file = query.get("file") ?? "";
  return {
    query: query.get("query") ?? "",
    kind: query.get("kind") ?? "",
    file: /^-?\d+\/\d+$/.test(file) ? file : "",
  };
}

/** @param {Filter & {file: string}} state */
function addressOf({ query, kind, file }) {
  const parts = [
    query && `query=${encodeURIComponent(query)}`,
    kind && `kind=${encodeURIComponent(kind)}`,
    file && `file=${file}`,
  ].filter(Boolean);
  return parts.length ? `/?${parts.join("&")}` : "/";
}

/** @param {string} id */
function enterViewer(id) {
  history.pushState({ cameFromGrid: true }, "", addressOf({ ...readAddress(), file: id }));
  followAddress();
}

/** Back to where the person came from; a deep link came from nowhere, so the grid takes its place. */
function leaveViewer() {
  if (history.state?.cameFromGrid) {
    history.back();
  } else {
    history.replaceState(null, "", addressOf({ ...readAddress(), file: "" }));
    followAddress();
  }
}

function followAddress() {
  const { file } = readAddress();
  if (file && file !== viewer.openId) {
    void viewer.open(file, grid.fileOf(file));
  } else if (!file && viewer.isOpen) {
    const closed = viewer.openId;
    viewer.close();
    grid.focus(closed);
  }
}

// The list ------------------------------------------------------------------------------------

/** @returns {Filter} */
function currentFilter() {
  const { query, kind } = readAddress();
  return { query, kind };
}

/** Fetch the list from the start; what is shown stays until the answer is here. */
async function loadFirstPage() {
  loading.abort();
  loading = new AbortController();
  const { signal } = loading;
  clearTimeout(timer);
  try {
    const page = await listFiles(currentFilter(), null, signal);
    showFirstPage(page);
    lookAgainIn(page.reading ? READING_MS : LOOK_AGAIN_MS);
  } catch (error) {
    if (!signal.aborted) {
      showFailure(error);
    }
  }
}

/** @param {FilePage} page */
function showFirstPage(page) {
  const scrolledBeyond = grid.size > page.files.length && page.next !== null;
  const isSameList = list.dataset.filter === JSON.stringify(currentFilter());
  if (isSameList && scrolledBeyond && isUnchanged(page)) {
    return;
  }
  list.dataset.filter = JSON.stringify(currentFilter());
  grid.replace(page.files);
  nextCursor = page.next;
  showSummary(page.reading);
  if (page.files.length === 0) {
    showNothing(page.reading);
  } else {
    notice.box.hidden = true;
  }
}

/**
 * Whether the grid begins with exactly these files, so that nobody's scroll position has to go.
 * @param {FilePage} page
 */
function isUnchanged(page) {
  const shown = grid.shown.keys();
  return page.files.every(
    ({ chat_id, message_id }) => shown.next().value === `${chat_id}/${message_id}`,
  );
}

async function loadMore() {
  if (nextCursor === null || isLoadingMore) {
    return;
  }
  isLoadingMore = true;
  const { signal } = loading;
  try {
    const page = await listFiles(currentFilter(), nextCursor, signal);
    grid.append(page.files);
    nextCursor = page.next;
    showSummary(page.reading);
  } catch (error) {
    if (!signal.aborted) {
      showFailure(error);
    }
  } finally {
    isLoadingMore = false;
  }
  if (!signal.aborted && isEndNear()) {
    void loadMore();
  }
}

function isEndNear() {
  return (
    element("more", HTMLElement).getBoundingClientRect().top < innerHeight + parseInt(AHEAD, 10)
  );
}

/** @param {number} milliseconds */
function lookAgainIn(milliseconds) {
  clearTimeout(timer);
  timer = window.setTimeout(() => {
    if (document.hidden) {
      return; // looked at again when it is shown
    }
    void loadFirstPage();
  }, milliseconds);
}

// What is said about it -----------------------------------------------------------------------

/** @param {boolean} isReading */
function showSummary(isReading) {
  const count = `${grid.size}${nextCursor === null ? "" : "+"} ${grid.size === 1 ? "file" : "files"}`;
  summary.textContent = isReading ? `${count}, reading the channel…` : count;
}

/** @param {boolean} isReading */
function showNothing(isReading) {
  const { query, kind } = currentFilter();
  summary.textContent = "";
  if (query || kind) {
    const text = query
      ? `No file has “${query}” in its name or caption.`
      : "No file of this kind yet.";
    showNotice("Nothing found", text, "Show everything", showEverything);
  } else if (isReading) {
    grid.showSkeletons();
    notice.box.hidden = true;
  } else {
    const text = "Post a film, a picture or music in the channel. It shows up here by itself.";
    showNotice("Nothing here yet", text, "Look again", loadFirstPage);
  }
}

/**
 * Say what is wrong, and try again without being asked where that can help.
 * @param {unknown} error
 */
function showFailure(error) {
  if (!(error instanceof ApiError)) {
    throw error;
  }
  if (grid.size === 0) {
    grid.clear();
  }
  const seconds = error.retryAfter || OFFLINE_DELAY_S;
  const isOffline = error.code === "offline";
  const asleep = error.code === "worker_unreachable";
  const title = isOffline
    ? navigator.onLine
      ? "The gallery does not answer"
      : "You are offline"
    : asleep
      ? "Waking the worker…"
      : "The channel cannot be read";
  const text = isOffline
    ? "This page keeps trying and goes on when the connection is back."
    : `${error.message} ${error.isPassing ? "This page keeps trying." : ""}`;
  summary.textContent = "";
  showNotice(title, text, "Try again now", loadFirstPage);
  if (error.isPassing) {
    lookAgainIn(seconds * 1000);
  }
}

/**
 * @param {string} title
 * @param {string} text
 * @param {string} label
 * @param {() => void} action
 */
function showNotice(title, text, label, action) {
  notice.title.textContent = title;
  notice.text.textContent = text;
  notice.action.textContent = label;
  noticeAction = action;
  notice.box.hidden = false;
}

function showEverything() {
  queryInput.value = "";
  chooseKind("");
  applyFilter();
  queryInput.focus();
}

// What the person does ------------------------------------------------------------------------

/** @param {string} kind */
function chooseKind(kind) {
  for (const input of kinds.querySelectorAll("input")) {
    input.checked = input.value === kind;
  }
}

function applyFilter() {
  const kind = kinds.querySelector("input:checked")?.getAttribute("value") ?? "";
  const query = queryInput.value.trim();
  history.replaceState(history.state, "", addressOf({ query, kind, file: "" }));
  scrollTo({ top: 0 });
  void loadFirstPage();
}

let typing = 0;
queryInput.addEventListener("input", () => {
  clearTimeout(typing);
  typing = window.setTimeout(applyFilter, TYPING_PAUSE_MS);
});
searchForm.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  applyFilter();
});
kinds.addEventListener("change", applyFilter);
notice.action.addEventListener("click", () => noticeAction());

list.addEventListener("click", (event) => {
  const link = /** @type {HTMLElement} */ (event.target).closest("a");
  const wantsNewTab = event.metaKey || event.ctrlKey || event.shiftKey;
  if (link?.dataset.file && !wantsNewTab) {
    event.preventDefault();
    enterViewer(link.dataset.file);
  }
});

document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement && event.target.type === "search";
  if (event.key === "/" && !isTyping && !viewer.isOpen) {
    event.preventDefault();
    queryInput.select();
  }
});

addEventListener("popstate", followAddress);
addEventListener("online", () => void loadFirstPage());
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) {
    void loadFirstPage();
  }
});
new IntersectionObserver(
  (entries) => {
    if (entries.some((entry) => entry.isIntersecting)) {
      void loadMore();
    }
  },
  { rootMargin: AHEAD },
).observe(element("more", HTMLElement));

startGuard();
const start = readAddress();
queryInput.value = start.query;
chooseKind(start.kind);
grid.showSkeletons();
followAddress();
void loadFirstPage();
