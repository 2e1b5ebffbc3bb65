// Links that open a film in another player, for the machine that this is. Pure.

/** @typedef {"android" | "ios" | "mac" | "desktop"} Platform */
/** @typedef {{name: string, link: (url: string, title: string) => string}} OtherPlayer */

/**
 * @param {string} userAgent
 * @param {number} touchPoints an iPad says that it is a Mac, but a Mac has no touch screen
 * @returns {Platform}
 */
export function platformOf(userAgent, touchPoints = 0) {
  if (/Android/.test(userAgent)) {
    return "android";
  }
  if (/iPhone|iPad|iPod/.test(userAgent)) {
    return "ios";
  }
  if (/Macintosh/.test(userAgent)) {
    return touchPoints > 1 ? "ios" : "mac";
  }
  return "desktop";
}

/**
 * The players there are on this platform that can be opened by a link.
 * @param {Platform} platform
 * @returns {OtherPlayer[]}
 */
export function playersOn(platform) {
  return PLAYERS[platform];
}

/**
 * Those to offer whoever has a link: on Linux and Windows hardly a player takes links; there the
 * playlist opens it.
 * @param {Platform} platform
 */
export function playersForLinks(platform) {
  return platform === "desktop" ? [] : playersOn(platform);
}

/**
 * Android hands `intent:` to one app by its package name.
 * @param {string} packageName
 * @returns {(url: string, title: string) => string}
 */
function intent(packageName) {
  return (url, title) => {
    const { protocol, host, pathname, search } = new URL(url);
    const fields = [
      `scheme=${protocol.slice(0, -1)}`,
      "type=video/*",
      `package=${packageName}`,
      `S.title=${encodeURIComponent(title)}`,
    ];
    return `intent://${host}${pathname}${search}#Intent;${fields.join(";")};end`;
  };
}

/**
 * @param {string} scheme
 * @param {string} action
 * @returns {(url: string) => string}
 */
function callback(scheme, action) {
  return (url) => `${scheme}://x-callback-url/${action}?url=${encodeURIComponent(url)}`;
}

/** Base64 as mpv's link handler reads it. @param {string} url */
function mpvLink(url) {
  const bytes = String.fromCharCode(...new TextEncoder().encode(url));
  const text = btoa(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  return `mpv://play/${text}`;
}

const VLC_ON_DESKTOP = { name: "VLC", link: (/** @type {string} */ url) => `vlc://${url}` };
const MPV_ON_DESKTOP = { name: "mpv", link: mpvLink };
const INFUSE = { name: "Infuse", link: callback("infuse", "play") };

/** @type {Record<Platform, OtherPlayer[]>} */
const PLAYERS = {
  android: [
    { name: "VLC", link: intent("org.videolan.vlc") },
    { name: "mpv", link: intent("is.xyz.mpv") },
    { name: "MX Player", link: intent("com.mxtech.videoplayer.ad") },
  ],
  ios: [{ name: "VLC", link: callback("vlc-x-callback", "stream") }, INFUSE],
  mac: [VLC_ON_DESKTOP, MPV_ON_DESKTOP, INFUSE],
  desktop: [VLC_ON_DESKTOP, MPV_ON_DESKTOP],
};
