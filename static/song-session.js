// What the lock screen and headphones say of a shared song.

const SIZES = "320x320";

/** Title, performer and cover, as the page has them. */
export function announceSong() {
  const [title, artist] = ["song-title", "song-performer"].map(
    (id) => document.getElementById(id)?.textContent ?? "",
  );
  const cover = document.getElementById("song-cover");
  if (navigator.mediaSession && title) {
    const artwork = cover instanceof HTMLImageElement ? [{ src: cover.src, sizes: SIZES }] : [];
    navigator.mediaSession.metadata = new MediaMetadata({ title, artist, artwork });
  }
}
