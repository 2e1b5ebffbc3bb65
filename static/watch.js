// The page for people who were sent a link: what it can do beyond playing.

import { formatDate } from "./format.js";
import { platformOf, playersForLinks } from "./open-in.js";
import { copyText, element } from "./page.js";

const copy = element("copy", HTMLButtonElement);
const said = element("said", HTMLElement);
const ends = element("ends", HTMLElement);
const players = element("players", HTMLElement);

/** The address without what was said to the player, such as where to begin. */
function addressOfPage() {
  return location.origin + location.pathname;
}

function showEnd() {
  const at = Number(ends.dataset.at);
  if (at) {
    ends.textContent = `· This link ends on ${formatDate(at)}.`;
    ends.hidden = false;
  }
}

/** Buttons for the players that a link can open. */
function offerPlayers() {
  const { link = "", title = "" } = players.dataset;
  const known = playersForLinks(platformOf(navigator.userAgent, navigator.maxTouchPoints));
  players.replaceChildren(
    ...known.map(({ name, link: linkOf }) => {
      const anchor = document.createElement("a");
      anchor.className = "button button-quiet";
      anchor.href = linkOf(link, title);
      anchor.textContent = `Open in ${name}`;
      return anchor;
    }),
  );
}

copy.addEventListener("click", () => void copyText(addressOfPage(), copy, { said, name: "Link" }));
copy.hidden = false;
showEnd();
if (!players.hidden) {
  offerPlayers();
}
