// A file's small picture, such as a song's cover, or the calm colour that stands for it.

import { fillPlaceholder, showThumbnail } from "./grid.js";

/**
 * @param {HTMLElement} box
 * @param {import("./api.js").MediaFile} file
 */
export function fillCover(box, file) {
  const placeholder = document.createElement("span");
  placeholder.className = "card-placeholder";
  fillPlaceholder(placeholder, file);
  box.replaceChildren(placeholder);
  if (file.thumbnail) {
    const image = document.createElement("img");
    image.alt = "";
    box.append(image);
    showThumbnail(image, file);
  }
}
