// What a player holds in advance. Pure.

/**
 * Seconds that can be played from here without another byte.
 * @param {{length: number, start(index: number): number, end(index: number): number}} buffered
 * @param {number} position
 */
export function bufferedAhead(buffered, position) {
  for (let index = 0; index < buffered.length; index += 1) {
    if (buffered.start(index) <= position + 0.2 && buffered.end(index) > position) {
      return buffered.end(index) - position;
    }
  }
  return 0;
}
