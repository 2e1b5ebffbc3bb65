// Which rows of a long grid are near the window: all others need not exist. Pure.

/**
 * @typedef {object} Layout
 * @property {number} columns
 * @property {number} width of a card
 * @property {number} columnGap
 * @property {number} rowHeight from one row's top to the next one's
 */

/**
 * As many columns as fit without a card narrower than `least`, and at least one.
 * @param {number} available
 * @param {number} least
 * @param {number} columnGap
 */
export function columnsIn(available, least, columnGap) {
  const columns = Math.max(1, Math.floor((available + columnGap) / (least + columnGap)));
  return { columns, width: (available - columnGap * (columns - 1)) / columns };
}

/**
 * Where a card stands, from the top left corner of the grid.
 * @param {number} index
 * @param {Layout} layout
 */
export function placeOf(index, { columns, width, columnGap, rowHeight }) {
  return {
    x: (index % columns) * (width + columnGap),
    y: Math.floor(index / columns) * rowHeight,
  };
}

/**
 * The cards within `margin` of the window: from `first` up to but without `last`.
 * @param {number} count
 * @param {{top: number, height: number, margin: number}} view where the window is in the grid
 * @param {Layout} layout
 */
export function cardsInView(count, { top, height, margin }, { columns, rowHeight }) {
  const firstRow = Math.max(0, Math.floor((top - margin) / rowHeight));
  const lastRow = Math.max(firstRow, Math.ceil((top + height + margin) / rowHeight));
  const first = Math.min(count, firstRow * columns);
  return { first, last: Math.min(count, lastRow * columns) };
}

/**
 * Where the arrow keys lead from a card; the card itself where they lead nowhere.
 * @param {string} key
 * @param {number} index
 * @param {number} count
 * @param {number} columns
 */
export function neighbourOf(key, index, count, columns) {
  /** @type {Record<string, number>} */
  const goals = {
    ArrowLeft: index - 1,
    ArrowRight: index + 1,
    ArrowUp: index - columns,
    ArrowDown: Math.min(index + columns, Math.max(index, count - 1)),
    Home: 0,
    End: count - 1,
  };
  const goal = goals[key] ?? index;
  return goal < 0 || goal >= count ? index : goal;
}
