// The gallery page: search and choices decide the list, the address bar decides what is open.

import { besides } from "./albums.js";
import { ApiError, listChannels, listFiles } from "./api.js";
import { DeepAlbums } from "./deep-album.js";
import { formatCount } from "./format.js";
import { Grid } from "./grid.js";
import { startGuard, tellAwake } from "./guard.js";
import { fileId, isSameOrder, mergeFirstPage, withoutKnown } from "./listing.js";
import { Music } from "./music.js";
import { MusicBar } from "./music-bar.js";
import { element, showProgress, workersOfPage } from "./page.js";
import { Presence } from "./presence.js";
import { isWorthWaitingFor, StatePanel } from "./state-panel.js";
import { Viewer } from "./viewer.js";
import { describeWaking, Waking } from "./waking.js";

/** @typedef {import("./api.js").Filter} Filter */
/** @typedef {import("./api.js").FilePage} FilePage */
/** @typedef {import("./api.js").MediaFile} MediaFile */

const TYPING_PAUSE_MS = 140;
const LOOK_AGAIN_MS = 20_000; // new posts show up without a reload
const READING_MS = 1_500; // and faster while the backend reads a channel's history
const AHEAD_PX = 1500; // how far above the end of the grid the next page is fetched
const OFFLINE_DELAY_S = 5;
const FILTERS = /** @type {const} */ (["query", "kind", "channel", "sort"]);

const list = element("grid", HTMLElement);
const searchForm = element("search", HTMLFormElement);
const queryInput = element("query", HTMLInputElement);
const kinds = element("kinds", HTMLElement);
const channelChoice = element("channel", HTMLSelectElement);
const sortChoice = element("sort", HTMLSelectElement);
const summary = element("summary", HTMLElement);
const notice = {
  box: element("notice", HTMLElement),
  title: element("notice-title", HTMLElement),
  text: element("notice-text", HTMLElement),
  bar: element("notice-bar", HTMLProgressElement),
  action: element("notice-action", HTMLButtonElement),
};

const presence = new Presence(comeBack);
const waking = new Waking(workersOfPage(), onWaking, () => presence.isThere);
const statePanel = new StatePanel(onState, () => presence.isThere);
const grid = new Grid(list);
const deepAlbums = new DeepAlbums();
const songElement = element("music-audio", HTMLAudioElement);
const music = new Music(songElement, { filter: currentFilter, goTo, waking });
new MusicBar(music, enterViewer);
const viewer = new Viewer({ leave: leaveViewer, neighbour, albumOf, fileOf, goTo, waking, music });
/** @type {string | null} */
let nextCursor = null;
let shownFilter = "";
let loading = new AbortController();
/** @type {Promise<void> | null} */
let loadingMore = null;
let timer = 0;
let noticeAction = () => {};
/** Whether the server thinks that a worker may wake up; until it has said so it may. */
let mayWake = true;

// What the address bar says -------------------------------------------------------------------

/** @returns {Filter & {file: string}} */
function readAddress() {
  const query = new URLSearchParams(location.search);
  const file = query.get("file") ?? "";
  const [words, kind, channel, sort] = FILTERS.map((name) => query.get(name) ?? "");
  return {
    query: words ?? "",
    kind: kind ?? "",
    channel: channel ?? "",
    sort: sort ?? "",
    file: /^-?\d+\/\d+$/.test(file) ? file : "",
  };
}

/** @param {Filter & {file: string}} state */
function addressOf({ file, ...filter }) {
  const parts = FILTERS.filter((name) => filter[name]).map(
    (name) => `${name}=${encodeURIComponent(filter[name])}`,
  );
  if (file) {
    parts.push(`file=${file}`);
  }
  return parts.length ? `/?${parts.join("&")}` : "/";
}

/** @param {string} id */
function enterViewer(id) {
  history.pushState({ cameFromGrid: true }, "", addressOf({ ...readAddress(), file: id }));
  followAddress();
}

/**
 * To another file in the open viewer; Back still leads out of it, not through all that was seen.
 * @param {string} id
 */
function goTo(id) {
  history.replaceState(history.state, "", addressOf({ ...readAddress(), file: id }));
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
    void viewer.open(file, fileOf(file));
  } else if (!file && viewer.isOpen) {
    const closed = viewer.openId;
    viewer.close();
    grid.refresh(closed);
    grid.focus(listedOf(closed, 1) ?? closed);
  }
}

/** @param {string} id */
function fileOf(id) {
  const inAlbum = deepAlbums.holding(id).find((file) => fileId(file) === id);
  return grid.fileOf(id) ?? music.fileOf(id) ?? inAlbum;
}

/**
 * The file before or after this one: in an album, then in the list that is shown.
 * @param {string} id
 * @param {1 | -1} step
 * @returns {Promise<string | null>}
 */
async function neighbour(id, step) {
  const inAlbum = besides(deepAlbums.holding(id), id, step);
  if (inAlbum) {
    return fileId(inAlbum);
  }
  const listed = listedOf(id, step);
  if (!listed) {
    return null; // a deep link to a file that the list does not hold, or not yet
  }
  if (step > 0 && !besides(grid.sequence, listed, step)) {
    await loadMore();
  }
  const file = besides(grid.sequence, listed, step);
  return file && fileId(file);
}

/**
 * The file in the list that stands for this one: itself, or another of its album.
 * @param {string} id
 * @param {1 | -1} step where one goes from there
 */
function listedOf(id, step) {
  const ids = new Set([id, ...deepAlbums.holding(id).map(fileId)]);
  const files = grid.sequence.filter((file) => ids.has(fileId(file)));
  const file = files.at(step > 0 ? -1 : 0);
  return file ? fileId(file) : null;
}

/**
 * The files that are shown together with this one, itself among them. A search finds one of an album
 * by the caption of all of them.
 * @param {MediaFile} file
 * @returns {Promise<MediaFile[]>}
 */
async function albumOf(file) {
  const id = fileId(file);
  if (!file.album) {
    return [file];
  }
  if (grid.mayGrow(id)) {
    await loadMore();
  }
  const group = grid.groupOf(id);
  return group.length === 0 || currentFilter().query ? deepAlbums.of(file) : group;
}

// The list ------------------------------------------------------------------------------------

/** @returns {Filter} */
function currentFilter() {
  const { file: _file, ...filter } = readAddress();
  return filter;
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
    lookAgainIn(page.index.state === "reading" ? READING_MS : LOOK_AGAIN_MS);
  } catch (error) {
    if (!signal.aborted) {
      showFailure(error);
    }
  }
}

/** @param {FilePage} page */
function showFirstPage(page) {
  const filter = JSON.stringify(currentFilter());
  const isSameList = filter === shownFilter;
  shownFilter = filter;
  const merged = isSameList ? mergeFirstPage(grid.files, page.files) : null;
  if (merged && scrollY > 0 && !isSameOrder(merged, grid.files)) {
    showSummary(page); // new posts wait until somebody who reads further down comes back up
    return;
  }
  if (!merged || merged.length === page.files.length) {
    nextCursor = page.next;
  }
  showFiles(merged ?? page.files, page);
  if (page.files.length === 0) {
    showNothing(page);
  } else {
    showNoNotice();
  }
}

/**
 * @param {MediaFile[]} files
 * @param {FilePage} page
 */
function showFiles(files, page) {
  grid.show(files, { hasMore: nextCursor !== null, total: page.total });
  showSummary(page);
}

/** Fetch the page after the last one; those who ask together share it. */
function loadMore() {
  loadingMore ??= fetchMore().finally(() => {
    loadingMore = null;
    if (notice.box.hidden) {
      loadMoreIfNear();
    }
  });
  return loadingMore;
}

function loadMoreIfNear() {
  if (nextCursor !== null && list.getBoundingClientRect().bottom < innerHeight + AHEAD_PX) {
    void loadMore();
  }
}

async function fetchMore() {
  if (nextCursor === null) {
    return;
  }
  const { signal } = loading;
  const cursor = nextCursor;
  try {
    const page = await listFiles(currentFilter(), cursor, signal);
    if (cursor === nextCursor) {
      nextCursor = page.next;
      showFiles([...grid.files, ...withoutKnown(grid.files, page.files)], page);
    }
  } catch (error) {
    if (!signal.aborted) {
      showFailure(error);
    }
  }
}

/** @param {number} milliseconds */
function lookAgainIn(milliseconds) {
  clearTimeout(timer);
  timer = window.setTimeout(() => {
    if (presence.isThere) {
      void loadFirstPage(); // otherwise when the person comes back
    }
  }, milliseconds);
}

/** The person is back: nothing was asked meanwhile, and the workers may have fallen asleep. */
function comeBack() {
  waking.start();
  void loadFirstPage();
  void statePanel.look();
}

async function loadChannels() {
  try {
    const channels = await listChannels();
    const options = channels.map(({ chat_id, title }) => new Option(title, String(chat_id)));
    channelChoice.append(...options);
    channelChoice.value = readAddress().channel;
    channelChoice.hidden = channels.length < 2;
  } catch (error) {
    if (!(error instanceof ApiError)) {
      throw error;
    }
    channelChoice.hidden = true; // the list shows all channels then, and says what is wrong
  }
}

// What is said about it -----------------------------------------------------------------------

/** @param {FilePage} page */
function showSummary({ total, index }) {
  const files = formatCount(total, "file");
  summary.textContent =
    index.state === "reading"
      ? `${files} · ${formatCount(index.messages_read, "message")} read…`
      : files;
}

/** @param {FilePage} page */
function showNothing(page) {
  const { query, kind, channel } = currentFilter();
  const isReading = page.index.state === "reading";
  if (isReading) {
    showSummary(page);
    grid.showSkeletons();
    showNoNotice();
  } else if (query || kind || channel) {
    summary.textContent = "";
    const text = query
      ? `No file has “${query}” in its name or caption.`
      : "No file of this kind here yet.";
    showNotice("Nothing found", text, "Show everything", showEverything);
  } else {
    summary.textContent = "";
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
  if (grid.files.length === 0) {
    grid.show([], { hasMore: false, total: 0 });
    summary.textContent = "";
  }
  const seconds = error.retryAfter || OFFLINE_DELAY_S;
  const isOffline = error.code === "offline";
  const text = isOffline
    ? "This page keeps trying and goes on when the connection is back."
    : `${error.message} ${error.isPassing ? "This page keeps trying." : ""}`;
  showNotice(titleOf(error), text, "Try again now", loadFirstPage);
  if (error.code === "worker_unreachable") {
    showWaking();
    void statePanel.look();
  }
  if (error.isPassing) {
    lookAgainIn(seconds * 1000);
  }
}

/** @param {ApiError} error */
function titleOf({ code }) {
  if (code === "offline") {
    return navigator.onLine ? "The gallery does not answer" : "You are offline";
  }
  if (code === "worker_unreachable") {
    return mayWake ? "Waking the worker…" : "The worker does not answer";
  }
  return "The channel cannot be read";
}

/** @param {import("./waking.js").Progress | null} progress null: a worker is awake */
function onWaking(progress) {
  viewer.showWaking();
  if (progress) {
    showWaking();
    return;
  }
  showNoNotice();
  tellAwake();
  void loadFirstPage();
  void statePanel.look();
}

/** How far the waking is; with a list to look at, at the edge of the page. */
function showWaking() {
  const { progress } = waking;
  if (!progress || !mayWake) {
    return;
  }
  const isEmpty = grid.files.length === 0;
  const next = isEmpty ? "The list shows up here by itself." : "A film that you open starts then.";
  const text = describeWaking(progress, next);
  // Said aloud once: a screen reader need not count the seconds.
  const isFirst = notice.bar.hidden || notice.box.hidden;
  showNotice("Waking the worker…", text, "", () => {});
  notice.box.ariaLive = isFirst ? "polite" : "off";
  notice.bar.hidden = false;
  showProgress(notice.bar, progress);
}

/** @param {import("./api.js").WorkerState[]} found */
function onState(found) {
  const mightWake = mayWake;
  mayWake = isWorthWaitingFor(found);
  if (mightWake && !mayWake && !notice.bar.hidden) {
    showNoNotice();
    void loadFirstPage(); // which says what is the matter, if it keeps the list away
  }
}

/** Nothing is wrong with the list; a worker that sleeps is still waited for. */
function showNoNotice() {
  notice.bar.hidden = true;
  notice.box.hidden = true;
  showWaking();
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
  notice.action.hidden = !label;
  notice.bar.hidden = true;
  notice.box.ariaLive = "polite";
  noticeAction = action;
  notice.box.classList.toggle("notice-small", grid.files.length > 0);
  notice.box.hidden = false;
}

function showEverything() {
  queryInput.value = "";
  channelChoice.value = "";
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
  const [channel, sort] = [channelChoice.value, sortChoice.value];
  const state = { query, kind, channel, sort, file: "" };
  history.replaceState(history.state, "", addressOf(state));
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
for (const choice of [kinds, channelChoice, sortChoice]) {
  choice.addEventListener("change", applyFilter);
}
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
addEventListener("scroll", loadMoreIfNear, { passive: true });

waking.start();
startGuard();
const start = readAddress();
queryInput.value = start.query;
sortChoice.value = start.sort;
chooseKind(start.kind);
grid.showSkeletons();
followAddress();
void loadFirstPage().then(loadMoreIfNear);
void loadChannels();
void statePanel.look();
