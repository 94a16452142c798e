/**
 * Reads the OpenMetrics text, and tells what was counted in the last minute. Pure.
 *
 * Takes every sample by its name and labels, so that a counter the server learns shows up by itself.
 */

/**
 * @typedef {object} Sample
 * @property {string} name with its suffix: `ringcast_play_total`
 * @property {Record<string, string>} labels
 * @property {number} value
 */

const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)$/;
const LABEL = /([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"/g;

/**
 * @param {string} text
 * @returns {Sample[]}
 */
export function parse(text) {
  const samples = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('#')) continue;
    const match = SAMPLE.exec(line);
    if (!match) continue;
    const [, name = '', labelText = '', value = ''] = match;
    /** @type {Record<string, string>} */
    const labels = {};
    for (const [, label = '', escaped = ''] of labelText.matchAll(LABEL)) {
      labels[label] = escaped.replace(/\\(.)/g, (_, char) => (char === 'n' ? '\n' : char));
    }
    samples.push({ name, labels, value: Number(value) });
  }
  return samples;
}

/** @param {Sample} sample */
export function keyOf(sample) {
  const labels = Object.entries(sample.labels).map(([name, value]) => `${name}=${value}`);
  return [sample.name, ...labels].join(' ');
}

/** Counters over time: their totals, and how much of each came in the last minute. */
export class Counters {
  static WINDOW_MS = 60_000;

  constructor() {
    /** @type {{at: number, values: Map<string, number>}[]} oldest first */
    this.past = [];
    /** @type {Sample[]} */
    this.samples = [];
  }

  /**
   * @param {string} text
   * @param {number} now in milliseconds
   */
  take(text, now) {
    this.samples = parse(text);
    const values = new Map(this.samples.map((sample) => [keyOf(sample), sample.value]));
    const last = this.past.at(-1);
    // A server that was started again counts from nothing.
    const uptime = 'ringcast_uptime_seconds';
    if (last && (values.get(uptime) ?? 0) < (last.values.get(uptime) ?? 0)) this.past = [];
    this.past.push({ at: now, values });
    while (this.past.length > 2 && (this.past[1]?.at ?? now) <= now - Counters.WINDOW_MS) this.past.shift();
  }

  /** How long the window is by now, in milliseconds. */
  get windowMs() {
    return (this.past.at(-1)?.at ?? 0) - (this.past[0]?.at ?? 0);
  }

  /**
   * What one series grew by within the window.
   *
   * @param {Sample} sample
   */
  growth(sample) {
    const key = keyOf(sample);
    return Math.max(0, sample.value - (this.past[0]?.values.get(key) ?? 0));
  }

  /**
   * What all series of a name grew by, those with a label value in `except` left out.
   *
   * @param {string} name
   * @param {string[]} [except]
   */
  growthOf(name, except = []) {
    let sum = 0;
    for (const sample of this.named(name)) {
      if (!Object.values(sample.labels).some((value) => except.includes(value))) sum += this.growth(sample);
    }
    return sum;
  }

  /**
   * @param {string} name
   * @returns {Sample[]}
   */
  named(name) {
    return this.samples.filter((sample) => sample.name === name);
  }
}
