// The viewer: one file, full window. Knows how each kind is shown and what can be done with it;
// the player keeps films going, the picture zooms, the dialogs look after themselves.

import { ApiError, createShare, getFile, listSubtitles, signExtras, signUrl } from "./api.js";
import { listenToTaps } from "./bare.js";
import { fillCover } from "./cover.js";
import { hasRoomForPdf, pdfFrame, tabAddress, textSheet, wayToShow } from "./documents.js";
import { FilmExtras } from "./film-extras.js";
import { formatDuration, formatFacts, formatTitle } from "./format.js";
import { fileId } from "./listing.js";
import { MusicSheet } from "./music-sheet.js";
import { platformOf, playersOn } from "./open-in.js";
import { copyText, element, showProgress } from "./page.js";
import { Picture } from "./picture.js";
import { Pictures, previewOf } from "./pictures.js";
import { Player } from "./player.js";
import { recallPosition, rememberPosition } from "./positions.js";
import { QualityMenu } from "./quality-menu.js";
import { ShareDialog } from "./share-dialog.js";
import { actionOf, HELP } from "./shortcuts.js";
import { Stats } from "./stats.js";
import { Strip } from "./strip.js";
import { describeWaking } from "./waking.js";

/** @typedef {import("./api.js").MediaFile} MediaFile */
/** @typedef {import("./api.js").Share} Share */

const SPEEDS = [0.5, 0.75, 1, 1.25, 1.5, 1.75, 2];
const REMEMBER_EVERY_S = 5;
const RESUMED_NOTE_MS = 8_000;
const IDLE_MS = 2_500; // in full screen the bar leaves when the mouse rests
const SWIPE_PX = 60;
const SWIPE_MS = 600;
const CONTROLS_PX = 90; // of the film's own controls, where a swipe means something else
const PLAYER_LINK_S = 24 * 3600; // a film and the evening around it
const PLAYLIST = "Playlist (m3u)";

/**
 * What the viewer needs of the page around it.
 * @typedef {object} Surroundings
 * @property {() => void} leave the person wants to go back
 * @property {(id: string, step: 1 | -1) => Promise<string | null>} neighbour
 * @property {(file: MediaFile) => Promise<MediaFile[]>} albumOf
 * @property {(id: string) => void} goTo
 * @property {(id: string) => MediaFile | undefined} fileOf what is known of a file
 * @property {import("./waking.js").Waking} waking
 * @property {import("./music.js").Music} music
 */

export class Viewer {
  #dialog = element("viewer", HTMLDialogElement);
  #frame = element("viewer-frame", HTMLElement);
  #stage = element("viewer-stage", HTMLElement);
  #status = element("viewer-status", HTMLElement);
  #waking = {
    box: element("viewer-waking", HTMLElement),
    text: element("viewer-waking-text", HTMLElement),
    bar: element("viewer-waking-bar", HTMLProgressElement),
  };
  /** Why nothing is to be seen, as the player says. @type {string | null} */
  #waitsFor = null;
  #problem = element("viewer-problem", HTMLElement);
  #problemText = element("viewer-problem-text", HTMLElement);
  #download = element("viewer-download", HTMLAnchorElement);
  #menu = element("viewer-menu", HTMLElement);
  #resumed = element("viewer-resumed", HTMLElement);
  #help = element("help", HTMLDialogElement);
  #share = new ShareDialog();
  #qualities = new QualityMenu(
    element("menu-quality", HTMLElement),
    element("menu-qualities", HTMLElement),
    (quality) => void this.#player?.choose(quality),
  );
  #stats = new Stats(
    element("viewer-stats", HTMLElement),
    element("viewer-stats-list", HTMLElement),
    () => (this.#player && this.#file ? { player: this.#player, file: this.#file } : null),
  );
  #around;
  /** @type {Player | null} */
  #player = null;
  /** @type {FilmExtras | null} */
  #extras = null;
  /** @type {Picture | null} */
  #picture = null;
  #pictures = new Pictures();
  #musicSheet;
  #strip;
  /** Where the person is going, and so what is fetched in advance. @type {1 | -1} */
  #direction = 1;
  /** @type {MediaFile | null} */
  #file = null;
  /** The file that is open; answers for another one come too late. */
  #id = "";
  #closing = new AbortController();
  #rememberedAt = 0;
  #resumedTimer = 0;
  #idleTimer = 0;
  #speed = 1;
  /** Links made for other players, one per film. @type {Map<string, Promise<Share>>} */
  #links = new Map();

  /** @param {Surroundings} around */
  constructor(around) {
    this.#around = around;
    this.#musicSheet = new MusicSheet(around.music);
    this.#strip = new Strip(
      element("viewer-strip", HTMLElement),
      element("viewer-strip-list", HTMLElement),
      element("viewer-strip-place", HTMLElement),
      (id) => around.goTo(id),
    );
    this.#dialog.addEventListener("cancel", (event) => {
      event.preventDefault();
      around.leave();
    });
    this.#dialog.addEventListener("keydown", (event) => this.#onKey(event));
    this.#frame.addEventListener("pointermove", () => this.#wake());
    addEventListener("pagehide", () => this.#remember());
    this.#listenToButtons();
    this.#listenToSwipes();
    listenToTaps(
      this.#stage,
      () => this.#picture !== null,
      () => this.#frame.classList.toggle("is-bare", this.#picture !== null && !this.#isBare),
    );
    this.#fillHelp();
    this.#fillSpeeds();
  }

  get isOpen() {
    return this.#dialog.open;
  }

  get openId() {
    return this.#id;
  }

  /** Whether a picture has the window for itself. */
  get #isBare() {
    return this.#frame.classList.contains("is-bare");
  }

  /** Whether what plays is music's, which goes on when the viewer is left, and remembers by itself. */
  get #isSong() {
    return this.#file?.kind === "audio";
  }

  /**
   * @param {string} id
   * @param {MediaFile} [known] what the grid knows of it; a deep link has to ask
   */
  async open(id, known) {
    this.#clear();
    this.#id = id;
    if (!this.#dialog.open) {
      this.#dialog.showModal();
    }
    this.#frame.focus();
    try {
      const file = known ?? (await getFile(id));
      if (this.#id === id) {
        this.#show(file);
      }
    } catch (error) {
      if (this.#id === id) {
        this.#showProblem(messageOf(error));
      }
    }
  }

  close() {
    if (document.fullscreenElement) {
      void document.exitFullscreen();
    }
    this.#stats.toggle(false);
    this.#clear();
    this.#strip.hide();
    this.#frame.classList.remove("is-bare");
    this.#dialog.close();
  }

  #clear() {
    this.#remember();
    this.#closing.abort();
    this.#closing = new AbortController();
    this.#leaveMusic();
    this.#player?.close();
    this.#player = null;
    this.#extras = null;
    this.#qualities.show(null);
    this.#picture = null;
    this.#file = null;
    this.#id = "";
    this.#stage.replaceChildren();
    this.#showStatus(null);
    this.#showProblem(null);
    this.#resumed.hidden = true;
    this.#menu.hidePopover();
    this.#download.hidden = true;
    this.#describe("", "", "");
  }

  // What is shown ------------------------------------------------------------------------------

  /** @param {MediaFile} file */
  #show(file) {
    this.#file = file;
    const facts = [formatDuration(file.duration), formatFacts(file, { resolution: true })];
    this.#describe(formatTitle(file), facts.filter(Boolean).join(" · "), file.caption);
    this.#download.hidden = false;
    this.#download.href = `?file=${fileId(file)}`;
    document.title = `${formatTitle(file)} – Rangegram`;
    this.#frame.dataset.kind = file.kind;
    this.#frame.classList.toggle("is-bare", this.#isBare && file.kind === "image");
    void this.#showAlbum(file);
    if (file.kind === "video") {
      this.#showVideo(file);
    } else if (file.kind === "audio") {
      this.#showAudio(file);
    } else if (file.kind === "image") {
      void this.#showImage(file);
    } else {
      this.#showDocument(file);
    }
    this.#fillMenu(file);
  }

  /**
   * @param {string} title
   * @param {string} facts
   * @param {string} caption
   */
  #describe(title, facts, caption) {
    element("viewer-title", HTMLElement).textContent = title;
    element("viewer-facts", HTMLElement).textContent = facts;
    const paragraph = element("viewer-caption", HTMLElement);
    paragraph.textContent = caption;
    paragraph.hidden = !caption || caption === title;
    document.title = "Rangegram";
  }

  /** @param {MediaFile} file */
  #showVideo(file) {
    const video = document.createElement("video");
    video.playsInline = true;
    if (file.thumbnail) {
      video.poster = file.thumbnail;
    }
    this.#stage.append(video);
    this.#play(video, file);
  }

  /** @param {MediaFile} file */
  #showAudio(file) {
    const { music } = this.#around;
    const playing = music.player;
    this.#player = music.open(file, {
      showStatus: (text) => this.#showStatus(text),
      showProblem: (problem) => this.#showProblem(problem?.message ?? null),
      adopt: (twin) => this.#follow(twin),
      countBytes: (bytes) => this.#stats.count(bytes),
    });
    this.#follow(music.media);
    this.#musicSheet.show(this.#stage);
    if (this.#player === playing) {
      this.#showSpeed(music.media.playbackRate);
    } else {
      this.#showResumed(music.resumesAt);
    }
  }

  /** Music plays on, whatever the viewer shows. */
  #leaveMusic() {
    if (this.#isSong) {
      this.#musicSheet.hide();
      this.#around.music.leave();
      this.#player = null;
    }
  }

  /**
   * The other files of its album, under it; music has its queue instead.
   * @param {MediaFile} file
   */
  async #showAlbum(file) {
    const id = fileId(file);
    try {
      const files = file.kind === "audio" ? [] : await this.#around.albumOf(file);
      if (this.#id === id) {
        this.#strip.show(files, id);
      }
    } catch (error) {
      if (!(error instanceof ApiError)) {
        throw error;
      }
      this.#strip.hide(); // the file itself is there, and says what is wrong if something is
    }
  }

  /**
   * @param {HTMLMediaElement} media
   * @param {MediaFile} file
   */
  #play(media, file) {
    const id = fileId(file);
    this.#around.music.pause();
    media.controls = true;
    media.preload = "metadata";
    media.crossOrigin = "anonymous";
    // The browser's own download would save the film under a URL that ends within the hour.
    media.setAttribute("controlslist", "nodownload");
    media.setAttribute("aria-label", formatTitle(file));
    this.#extras = this.#surround(file);
    /** @type {import("./player.js").PlayerView} */
    const view = {
      showStatus: (text) => this.#showStatus(text),
      showProblem: (problem) => this.#showFault(problem),
      adopt: (twin) => {
        this.#stats.forgetCount();
        this.#follow(twin);
      },
      countBytes: (bytes) => this.#stats.count(bytes),
      showQualities: (qualities) => this.#qualities.show(qualities),
      untilAwake: (worker) => this.#around.waking.untilAwake(worker),
    };
    this.#player = new Player(media, (failed) => signUrl(id, failed), view, id);
    this.#follow(media);
    announce(file, (step) => void this.#step(step));
    const position = recallPosition(id);
    void this.#begin(this.#player, position);
  }

  /**
   * Play, unless it is known that this browser cannot; then by the person's own wish.
   * @param {Player} player
   * @param {number} position
   */
  async #begin(player, position) {
    const play = () => {
      this.#showResumed(position);
      void player.open({ position, speed: this.#speed });
    };
    if ((await this.#extras?.mayPlay(play)) && this.#player === player) {
      play();
    }
  }

  /** @param {MediaFile} file */
  #surround(file) {
    const id = fileId(file);
    return new FilmExtras({
      stage: this.#stage,
      media: () => this.#player?.media ?? null,
      film: file,
      sign: (failed) => signExtras(id, failed),
      listSubtitles: () => listSubtitles(id),
      ways: () => this.#waysOut(file),
      showStatus: (text) => this.#showStatus(text),
      menu: {
        section: element("menu-subtitles", HTMLElement),
        chips: element("menu-subtitles-chips", HTMLElement),
        note: element("menu-subtitles-note", HTMLElement),
      },
      signal: this.#closing.signal,
    });
  }

  /** @param {ApiError | null} problem */
  #showFault(problem) {
    if (problem?.isForm) {
      this.#showProblem(null);
      void this.#extras?.explain(problem.message, () => void this.#player?.retry());
    } else {
      this.#showProblem(problem?.message ?? null);
      this.#extras?.clear();
    }
  }

  /**
   * @param {MediaFile} file
   * @returns {import("./playable.js").Way[]}
   */
  #waysOut(file) {
    return [
      ...this.#otherPlayers(file).map(({ name, address }) => ({
        name: name === PLAYLIST ? name : `Open in ${name}`,
        act: () => void this.#openElsewhere(address),
      })),
      { name: "Download", act: (event) => void this.#startDownload(event) },
    ];
  }

  /**
   * Listen to the element that plays now, which another one may replace.
   * @param {HTMLMediaElement} media
   */
  #follow(media) {
    const { signal } = this.#closing;
    const remember = () => media === this.#player?.media && this.#remember();
    media.addEventListener("pause", remember, { signal });
    media.addEventListener("ended", remember, { signal });
    media.addEventListener(
      "timeupdate",
      () => {
        if (Math.abs(media.currentTime - this.#rememberedAt) >= REMEMBER_EVERY_S) {
          remember();
        }
      },
      { signal },
    );
    media.addEventListener("ratechange", () => this.#showSpeed(media.playbackRate), { signal });
  }

  #remember() {
    const media = this.#player?.media;
    if (media && !this.#isSong && this.#id && media.readyState > 0) {
      this.#rememberedAt = media.currentTime;
      rememberPosition(this.#id, { at: media.currentTime, duration: media.duration });
    }
  }

  /** @param {number} position */
  #showResumed(position) {
    clearTimeout(this.#resumedTimer);
    this.#resumed.hidden = position === 0;
    if (position > 0) {
      const text = `Resumed at ${formatDuration(position)}`;
      element("viewer-resumed-text", HTMLElement).textContent = text;
      this.#resumedTimer = window.setTimeout(() => {
        this.#resumed.hidden = true;
      }, RESUMED_NOTE_MS);
    }
  }

  #startOver() {
    this.#resumed.hidden = true;
    if (this.#player) {
      this.#player.media.currentTime = 0;
    }
    this.#frame.focus();
  }

  /** @param {MediaFile} file */
  async #showImage(file) {
    const id = fileId(file);
    const preview = previewOf(file);
    if (preview) {
      this.#stage.append(preview);
    }
    const late = setTimeout(() => this.#id === id && this.#showStatus("Loading…"), 300);
    try {
      const image = await this.#pictures.take(id);
      image.alt = file.caption || formatTitle(file);
      if (this.#id === id) {
        this.#stage.replaceChildren(image);
        this.#picture = new Picture(this.#stage, image, this.#closing.signal);
        void this.#prepareNext(id);
      }
    } catch (error) {
      if (this.#id === id) {
        this.#showProblem(messageOf(error, "The picture cannot be loaded."));
      }
    } finally {
      clearTimeout(late);
      if (this.#id === id) {
        this.#showStatus(null);
      }
    }
  }

  /**
   * Fetch the one picture that is likely to be looked at next.
   * @param {string} id of the one that is shown
   */
  async #prepareNext(id) {
    const next = await this.#around.neighbour(id, this.#direction);
    const file = next && this.#around.fileOf(next);
    if (next && file && this.#id === id) {
      this.#pictures.prepare(next, file);
    }
  }

  /** @param {MediaFile} file */
  #showDocument(file) {
    const way = wayToShow(file);
    if (way === "text" || (way === "pdf" && hasRoomForPdf())) {
      void this.#showPaper(file, way);
    } else {
      this.#stage.append(this.#fileSheet(file));
    }
  }

  /**
   * A document that can be read here; one that cannot after all is offered as a file.
   * @param {MediaFile} file
   * @param {"pdf" | "text"} way
   */
  async #showPaper(file, way) {
    const { signal } = this.#closing;
    const late = setTimeout(() => this.#showStatus("Loading…"), 300);
    signal.addEventListener("abort", () => clearTimeout(late));
    try {
      const paper = await (way === "pdf" ? pdfFrame(file, signal) : textSheet(file, signal));
      if (!signal.aborted) {
        this.#stage.append(paper ?? this.#fileSheet(file));
      }
    } catch (error) {
      if (!signal.aborted) {
        this.#showProblem(messageOf(error, "The document cannot be loaded."));
      }
    } finally {
      clearTimeout(late);
      if (!signal.aborted) {
        this.#showStatus(null);
      }
    }
  }

  /**
   * A file to take away, or to open where the browser has a viewer for it.
   * @param {MediaFile} file
   */
  #fileSheet(file) {
    const ways = document.createElement("p");
    ways.className = "viewer-ways";
    const download = document.createElement("a");
    download.className = "button button-primary";
    download.href = this.#download.href;
    download.textContent = "Download";
    download.addEventListener("click", (event) => void this.#startDownload(event));
    ways.append(download);
    if (wayToShow(file) === "pdf") {
      download.className = "button";
      ways.prepend(this.#tabLink(file));
    }
    return this.#sheet(file, ways);
  }

  /** @param {MediaFile} file */
  #tabLink(file) {
    const link = document.createElement("a");
    link.className = "button button-primary";
    link.href = tabAddress(file);
    link.target = "_blank";
    link.rel = "noopener";
    link.textContent = "Open";
    return link;
  }

  /**
   * Cover, name and what can be done, for what has no moving picture.
   * @param {MediaFile} file
   * @param {HTMLElement} control
   */
  #sheet(file, control) {
    const sheet = document.createElement("div");
    sheet.className = "viewer-sheet";
    const cover = document.createElement("div");
    cover.className = "viewer-cover";
    fillCover(cover, file);
    const name = document.createElement("p");
    name.className = "viewer-sheet-name";
    name.textContent = file.name || formatTitle(file);
    sheet.append(cover, name, control);
    return sheet;
  }

  /** @param {string | null} text */
  #showStatus(text) {
    this.#waitsFor = text;
    this.showWaking();
  }

  /** A worker that sleeps is what a waiting film waits for, and says how far it is. */
  showWaking() {
    const progress = this.#waitsFor === null ? null : this.#around.waking.progress;
    this.#status.textContent = this.#waitsFor;
    this.#status.hidden = this.#waitsFor === null || progress !== null;
    this.#waking.box.hidden = progress === null;
    if (progress) {
      this.#waking.text.textContent = describeWaking(progress, "The film then starts by itself.");
      showProgress(this.#waking.bar, progress);
    }
  }

  /** @param {string | null} text */
  #showProblem(text) {
    this.#problemText.textContent = text;
    this.#problem.hidden = text === null;
  }

  // What can be done ---------------------------------------------------------------------------

  #listenToButtons() {
    /** @type {[id: string, action: () => void][]} */
    const buttons = [
      ["viewer-close", () => this.#around.leave()],
      ["viewer-previous", () => void this.#step(-1)],
      ["viewer-next", () => void this.#step(1)],
      ["viewer-share", () => this.#openShare()],
      ["viewer-retry", () => this.#tryAgain()],
      ["viewer-start-over", () => this.#startOver()],
      ["viewer-fullscreen", () => void this.#toggleFullscreen()],
      ["menu-fullscreen", () => void this.#toggleFullscreen()],
      ["menu-pip", () => void this.#togglePictureInPicture()],
      ["menu-stats", () => this.#stats.toggle()],
      ["menu-help", () => this.#help.showModal()],
      ["viewer-stats-close", () => this.#stats.toggle(false)],
      ["help-close", () => this.#help.close()],
    ];
    for (const [id, action] of buttons) {
      element(id, HTMLButtonElement).addEventListener("click", () => {
        this.#menu.hidePopover();
        action();
      });
    }
    this.#help.addEventListener("cancel", (event) => event.stopPropagation());
    this.#help.addEventListener("click", (event) => {
      if (event.target === this.#help) {
        this.#help.close();
      }
    });
    this.#download.addEventListener("click", (event) => void this.#startDownload(event));
    element("menu-tab", HTMLAnchorElement).addEventListener("click", () => {
      this.#menu.hidePopover();
    });
    element("menu-copy", HTMLButtonElement).addEventListener("click", (event) => {
      const button = /** @type {HTMLButtonElement} */ (event.currentTarget);
      const here = `${location.origin}/?file=${this.#id}`;
      void copyText(here, button);
    });
  }

  #fillHelp() {
    const rows = HELP.flatMap(([keys, text]) => {
      const term = document.createElement("dt");
      for (const key of keys) {
        const cap = document.createElement(key === "…" ? "span" : "kbd");
        cap.textContent = key;
        term.append(cap);
      }
      const meaning = document.createElement("dd");
      meaning.textContent = text;
      return [term, meaning];
    });
    element("help-list", HTMLElement).replaceChildren(...rows);
  }

  #fillSpeeds() {
    const speeds = element("menu-speeds", HTMLElement);
    speeds.append(
      ...SPEEDS.map((speed) => {
        const label = document.createElement("label");
        label.className = "chip";
        const input = document.createElement("input");
        Object.assign(input, { type: "radio", name: "speed", value: speed, checked: speed === 1 });
        const text = document.createElement("span");
        text.textContent = `${speed}×`;
        label.append(input, text);
        return label;
      }),
    );
    speeds.addEventListener("change", (event) => {
      this.#setSpeed(Number(/** @type {HTMLInputElement} */ (event.target).value));
    });
  }

  /** @param {MediaFile} file */
  #fillMenu(file) {
    const isFilm = file.kind === "video" || file.kind === "audio";
    element("menu-media", HTMLElement).hidden = !isFilm;
    element("menu-stats", HTMLElement).hidden = !isFilm;
    const tab = element("menu-tab", HTMLAnchorElement);
    tab.hidden = wayToShow(file) !== "pdf";
    tab.href = tabAddress(file);
    element("menu-pip", HTMLElement).hidden =
      file.kind !== "video" || !document.pictureInPictureEnabled;
    const players = this.#otherPlayers(file).filter(({ name }) => isFilm || name === PLAYLIST);
    element("menu-players", HTMLElement).replaceChildren(
      ...players.map(({ name, address }) => this.#playerEntry(name, address)),
    );
  }

  /**
   * Where a film can be opened from here, the playlist last.
   * @param {MediaFile} file
   * @returns {{name: string, address: (share: Share) => string}[]}
   */
  #otherPlayers(file) {
    const players = playersOn(platformOf(navigator.userAgent, navigator.maxTouchPoints));
    return [
      ...players.map(({ name, link }) => ({
        name,
        address: (/** @type {Share} */ { url }) => link(url, formatTitle(file)),
      })),
      { name: PLAYLIST, address: ({ m3u_url }) => m3u_url },
    ];
  }

  /**
   * A button that opens the film elsewhere, on a link that outlasts the film.
   * @param {string} name
   * @param {(share: Share) => string} addressOf
   */
  #playerEntry(name, addressOf) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "menu-item";
    button.textContent = name;
    button.addEventListener("click", () => {
      this.#menu.hidePopover();
      void this.#openElsewhere(addressOf);
    });
    return button;
  }

  /** @param {(share: Share) => string} addressOf */
  async #openElsewhere(addressOf) {
    try {
      const share = await this.#linkForPlayers();
      this.#player?.media.pause();
      location.assign(addressOf(share));
    } catch (error) {
      this.#showProblem(messageOf(error));
    }
  }

  #linkForPlayers() {
    const file = this.#file;
    if (!file) {
      return Promise.reject(new ApiError("closed", "No film is open."));
    }
    const id = fileId(file);
    const known = this.#links.get(id) ?? createShare(file, PLAYER_LINK_S);
    this.#links.set(id, known);
    known.catch(() => this.#links.delete(id));
    return known;
  }

  #openShare() {
    if (this.#file) {
      void this.#share.open(this.#file);
    }
  }

  /** @param {1 | -1} step */
  async #step(step) {
    const from = this.#id;
    if (this.#isSong) {
      await this.#around.music.step(step);
      return;
    }
    this.#direction = step;
    const goal = await this.#around.neighbour(from, step);
    if (goal && this.#id === from) {
      this.#around.goTo(goal);
    }
  }

  async #toggleFullscreen() {
    if (document.fullscreenElement) {
      await document.exitFullscreen();
    } else if (this.#frame.requestFullscreen) {
      await this.#frame.requestFullscreen();
      this.#wake();
    }
  }

  async #togglePictureInPicture() {
    const media = this.#player?.media;
    if (document.pictureInPictureElement) {
      await document.exitPictureInPicture();
    } else if (media instanceof HTMLVideoElement) {
      // Before its first picture a film cannot leave the page.
      await media.requestPictureInPicture().catch(() => this.#showProblem(null));
    }
  }

  /** @param {number} speed */
  #setSpeed(speed) {
    this.#speed = speed;
    if (this.#player) {
      this.#player.media.playbackRate = speed;
    }
  }

  /** @param {number} speed */
  #showSpeed(speed) {
    this.#speed = speed;
    for (const input of element("menu-speeds", HTMLElement).querySelectorAll("input")) {
      input.checked = Number(input.value) === speed;
    }
  }

  #wake() {
    clearTimeout(this.#idleTimer);
    this.#frame.classList.remove("is-idle");
    this.#idleTimer = window.setTimeout(() => {
      this.#frame.classList.toggle("is-idle", document.fullscreenElement === this.#frame);
    }, IDLE_MS);
  }

  /**
   * Sign at the moment of the click: a link made earlier would have run out.
   * @param {Event} event
   */
  async #startDownload(event) {
    event.preventDefault();
    try {
      const { url } = await signUrl(this.#id);
      const address = new URL(url, location.href);
      address.searchParams.set("download", "1");
      address.searchParams.delete("hold"); // a download has nowhere else to go
      location.assign(address);
    } catch (error) {
      this.#showProblem(messageOf(error));
    }
  }

  #tryAgain() {
    if (this.#player) {
      void this.#player.retry();
    } else {
      void this.open(this.#id);
    }
  }

  // Keys and fingers -----------------------------------------------------------------------------

  /** @param {KeyboardEvent} event */
  #onKey(event) {
    const target = /** @type {HTMLElement} */ (event.target);
    const isOther = target.closest("dialog") !== this.#dialog || target.closest("input, select");
    if (isOther || event.altKey || event.ctrlKey || event.metaKey) {
      return;
    }
    const isButton = target.closest("button, a");
    if (isButton && (event.key === " " || event.key === "Enter")) {
      return;
    }
    const action = actionOf(event.key, this.#player !== null);
    if (action) {
      event.preventDefault();
      this.#do(action, event.key);
    }
  }

  /**
   * @param {import("./shortcuts.js").Action} action
   * @param {string} key
   */
  #do(action, key) {
    const media = this.#player?.media;
    /** @type {(seconds: number) => void} */
    const skip = (seconds) => {
      if (media) {
        media.currentTime = Math.max(0, media.currentTime + seconds);
      }
    };
    /** @type {(change: number) => void} */
    const louder = (change) => {
      if (media) {
        media.volume = Math.min(1, Math.max(0, media.volume + change));
      }
    };
    /** @type {Record<typeof action, () => void>} */
    const actions = {
      toggle: () => {
        if (media?.paused) {
          media.play().catch(() => {
            // the player, which has heard the wish, starts what takes this element's place
          });
        } else {
          media?.pause();
        }
      },
      back10: () => skip(-10),
      forward10: () => skip(10),
      back5: () => skip(-5),
      forward5: () => skip(5),
      louder: () => louder(0.1),
      quieter: () => louder(-0.1),
      mute: () => {
        if (media) {
          media.muted = !media.muted;
        }
      },
      captions: () => this.#extras?.toggleSubtitles(),
      jump: () => {
        if (media?.duration) {
          media.currentTime = (media.duration * Number(key)) / 10;
        }
      },
      slower: () => this.#setSpeed(nextSpeed(this.#speed, -1)),
      faster: () => this.#setSpeed(nextSpeed(this.#speed, 1)),
      fullscreen: () => void this.#toggleFullscreen(),
      stats: () => this.#stats.toggle(),
      share: () => this.#openShare(),
      help: () => this.#help.showModal(),
      next: () => void this.#step(1),
      previous: () => void this.#step(-1),
      zoomIn: () => this.#picture?.zoom(1.4),
      zoomOut: () => this.#picture?.zoom(1 / 1.4),
      zoomReset: () => this.#picture?.zoom(0),
    };
    actions[action]();
  }

  #listenToSwipes() {
    let start = { id: -1, x: 0, y: 0, at: 0 };
    this.#stage.addEventListener("pointerdown", (event) => {
      const { bottom } = this.#stage.getBoundingClientRect();
      const isOnControls = this.#player !== null && event.clientY > bottom - CONTROLS_PX;
      const isSwipe = event.pointerType === "touch" && event.isPrimary && !isOnControls;
      const id = isSwipe && !this.#picture?.isZoomed ? event.pointerId : -1;
      start = { id, x: event.clientX, y: event.clientY, at: event.timeStamp };
    });
    this.#stage.addEventListener("pointerup", (event) => {
      const [dx, dy] = [event.clientX - start.x, event.clientY - start.y];
      const isQuick = event.timeStamp - start.at < SWIPE_MS;
      const isAcross = Math.abs(dx) > SWIPE_PX && Math.abs(dx) > 2 * Math.abs(dy);
      if (event.pointerId === start.id && isQuick && isAcross && !this.#picture?.isZoomed) {
        void this.#step(dx < 0 ? 1 : -1);
      }
    });
  }
}

/**
 * @param {number} speed
 * @param {1 | -1} step
 */
function nextSpeed(speed, step) {
  const index = SPEEDS.indexOf(speed);
  return SPEEDS[Math.min(SPEEDS.length - 1, Math.max(0, index + step))] ?? 1;
}

/**
 * Title and keys for the lock screen, headphones and media keys.
 * @param {MediaFile} file
 * @param {(step: 1 | -1) => void} step
 */
function announce(file, step) {
  const session = navigator.mediaSession;
  if (!session) {
    return;
  }
  const artwork = file.thumbnail ? [{ src: file.thumbnail }] : [];
  session.metadata = new MediaMetadata({ title: formatTitle(file), artwork });
  session.setActionHandler("nexttrack", () => step(1));
  session.setActionHandler("previoustrack", () => step(-1));
}

/**
 * @param {unknown} error
 * @param {string} [otherwise]
 */
function messageOf(error, otherwise = "This file cannot be opened.") {
  return error instanceof ApiError ? error.message : otherwise;
}
