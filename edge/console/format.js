/** Figures for people: short, with units, of one form in the whole console. Pure. */

const DASH = '–';
const whole = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 });

/**
 * A number of three significant digits with its unit.
 *
 * @param {number} value
 * @param {number} step 1000 or 1024
 * @param {string[]} units smallest first
 */
function scaled(value, step, units) {
  let index = 0;
  while (value >= step && index < units.length - 1) {
    value /= step;
    index += 1;
  }
  const digits = index === 0 || value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return `${value.toFixed(digits)} ${units[index]}`;
}

/** @param {number | null | undefined} perSecond */
export function bitrate(perSecond) {
  if (perSecond === null || perSecond === undefined) return DASH;
  return scaled(perSecond, 1000, ['b/s', 'kb/s', 'Mb/s', 'Gb/s', 'Tb/s']);
}

/** @param {number | null | undefined} count */
export function bytes(count) {
  if (count === null || count === undefined) return DASH;
  return scaled(count, 1024, ['B', 'KiB', 'MiB', 'GiB', 'TiB']);
}

/** @param {number | null | undefined} count */
export function number(count) {
  return count === null || count === undefined ? DASH : whole.format(count);
}

/** @param {number | null | undefined} perSecond */
export function frames(perSecond) {
  return perSecond === null || perSecond === undefined ? DASH : `${perSecond.toFixed(1)} fps`;
}

/** @param {number} ratio */
export function percent(ratio) {
  return `${(ratio * 100).toFixed(ratio < 0.1 ? 1 : 0)} %`;
}

/**
 * A time span in its two largest units.
 *
 * @param {number} ms
 */
export function span(ms) {
  const seconds = Math.floor(ms / 1000);
  if (seconds < 60) return `${seconds} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${seconds % 60} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/**
 * Milliseconds that matter to the eye: lag, GOP length.
 *
 * @param {number | null | undefined} ms
 */
export function delay(ms) {
  if (ms === null || ms === undefined) return DASH;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** @param {number} unixSeconds */
export function moment(unixSeconds) {
  return `${new Date(unixSeconds * 1000).toISOString().slice(0, 16).replace('T', ' ')} UTC`;
}

/**
 * "1 viewer", "2 viewers".
 *
 * @param {number} count
 * @param {string} one
 * @param {string} [many]
 */
export function plural(count, one, many = `${one}s`) {
  return `${number(count)} ${count === 1 ? one : many}`;
}

const CODECS = new Map([
  ['h264', 'H.264'], ['hevc', 'HEVC'], ['av1', 'AV1'], ['vp8', 'VP8'], ['vp9', 'VP9'], ['vvc', 'VVC'],
  ['aac', 'AAC'], ['mp3', 'MP3'], ['opus', 'Opus'], ['flac', 'FLAC'], ['ac3', 'AC-3'], ['eac3', 'E-AC-3'],
]);

/** @param {string | null} name */
export function codec(name) {
  return name === null ? '' : CODECS.get(name) ?? name;
}
