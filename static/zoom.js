// Arithmetic of a picture that is zoomed and moved. Pure. Points are measured from the centre.

export const ZOOM_MAX = 8;
export const DOUBLE_TAP_ZOOM = 2.5;

/** @typedef {{scale: number, x: number, y: number}} View how the picture is transformed */
/** @typedef {{width: number, height: number}} Size */

/** @type {View} */
export const WHOLE = { scale: 1, x: 0, y: 0 };

/**
 * The picture's size when it is shown whole.
 * @param {Size} picture
 * @param {Size} stage
 * @returns {Size}
 */
export function fittedSize(picture, stage) {
  const fit = Math.min(stage.width / picture.width, stage.height / picture.height, 1);
  return { width: picture.width * fit, height: picture.height * fit };
}

/**
 * Zoom so that what is under the point stays under it.
 * @param {View} view
 * @param {number} factor
 * @param {{x: number, y: number}} point
 * @returns {View}
 */
export function zoomAt(view, factor, point) {
  const scale = Math.min(ZOOM_MAX, Math.max(1, view.scale * factor));
  const change = scale / view.scale;
  return {
    scale,
    x: point.x - (point.x - view.x) * change,
    y: point.y - (point.y - view.y) * change,
  };
}

/**
 * Keep the picture in sight: no edge of it comes further in than the stage's edge.
 * @param {View} view
 * @param {Size} fitted
 * @param {Size} stage
 * @returns {View}
 */
export function keepInSight({ scale, x, y }, fitted, stage) {
  const limitX = Math.max(0, (fitted.width * scale - stage.width) / 2);
  const limitY = Math.max(0, (fitted.height * scale - stage.height) / 2);
  return { scale, x: clamp(x, limitX), y: clamp(y, limitY) };
}

/**
 * @param {number} value
 * @param {number} limit
 */
function clamp(value, limit) {
  return Math.min(limit, Math.max(-limit, value)) + 0; // and never -0
}
