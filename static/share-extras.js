// What surrounds the film of a share link: as in the gallery, by the doors that a link opens.

import { signSharedExtras } from "./api.js";
import { FilmExtras } from "./film-extras.js";
import { platformOf, playersForLinks } from "./open-in.js";

/** @typedef {import("./playable.js").Way} Way */
/** @typedef {import("./subtitles.js").Subtitle} Subtitle */

/**
 * @param {object} around
 * @param {string} around.share
 * @param {HTMLElement} around.stage
 * @param {() => HTMLMediaElement} around.media
 * @param {(text: string | null) => void} around.showStatus
 */
export function surroundShared({ share, stage, media, showStatus }) {
  const film = media();
  const { name = "", kind = "", type = "", storyboard, heights = "" } = film.dataset;
  const edge = (/** @type {string} */ each) => Number(film.getAttribute(each)) || null;
  return new FilmExtras({
    stage,
    media,
    film: {
      name,
      kind,
      mime_type: type,
      width: edge("width"),
      height: edge("height"),
      qualities: heights.split(" ").filter(Boolean).map(Number),
      has_storyboard: storyboard === "yes",
    },
    sign: (failed) => signSharedExtras(share, failed),
    listSubtitles: () => listSubtitles(share),
    ways: () => waysOut(share, film.getAttribute("aria-label") ?? ""),
    showStatus,
    signal: new AbortController().signal,
  });
}

/**
 * @param {string} share
 * @returns {Promise<Subtitle[]>}
 */
async function listSubtitles(share) {
  if (window.origin === "null") {
    return []; // a frame without an origin of its own may not load a track from anywhere
  }
  const answer = await fetch(`/v/${share}/subtitles`);
  /** @type {Subtitle[]} */
  const subtitles = answer.ok ? await answer.json() : [];
  // Below the name that this page was opened by: a track of another one would not be shown.
  return subtitles.map((each) => ({ ...each, url: new URL(each.url).pathname }));
}

/**
 * @param {string} share
 * @param {string} title
 * @returns {Way[]}
 */
function waysOut(share, title) {
  const link = new URL(`/v/${share}`, location.href).href;
  const players = playersForLinks(platformOf(navigator.userAgent, navigator.maxTouchPoints));
  return [
    ...players.map(({ name, link: linkOf }) => ({
      name: `Open in ${name}`,
      href: linkOf(link, title),
    })),
    { name: "Playlist (m3u)", href: `/m3u/${share}` },
    { name: "Download", href: `/v/${share}?download=1` },
  ];
}
