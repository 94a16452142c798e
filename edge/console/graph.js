/**
 * Small graphs on a canvas, drawn from values of the store. The colour is the text colour of the canvas, so
 * themes are left to the style sheet. Nothing moves between two values.
 */

import { HISTORY_MAX } from './store.js';

/** A line without axes, for a row of a table. Hidden from screen readers: its figure stands beside it. */
export class Sparkline {
  /** @param {string} [kind] class for its colour */
  constructor(kind = '') {
    this.canvas = document.createElement('canvas');
    this.canvas.className = `spark ${kind}`.trim();
    this.canvas.setAttribute('aria-hidden', 'true');
  }

  /**
   * @param {number[]} values oldest first
   * @param {number} [least] top of the scale at least
   */
  draw(values, least = 1) {
    const context = prepare(this.canvas);
    if (!context) return;
    const { width, height } = size(this.canvas);
    line(context, values, { left: 0, top: 1.5, width, height: height - 3 }, Math.max(least, ...values));
  }
}

/** A graph with a scale and a sentence for screen readers. */
export class Graph {
  /**
   * @param {string} title
   * @param {(value: number) => string} format
   * @param {string} [kind] class for its colour
   */
  constructor(title, format, kind = '') {
    this.format = format;
    this.title = title;
    this.canvas = document.createElement('canvas');
    this.canvas.className = `graph-canvas ${kind}`.trim();
    this.canvas.setAttribute('role', 'img');
    this.value = document.createElement('strong');
    this.top = document.createElement('span');
    this.top.className = 'graph-top';
    const name = document.createElement('span');
    name.textContent = title;
    const head = document.createElement('figcaption');
    head.append(name, this.value);
    const from = document.createElement('span');
    from.textContent = '2 min ago';
    const to = document.createElement('span');
    to.textContent = 'now';
    const axis = document.createElement('div');
    axis.className = 'graph-axis';
    axis.setAttribute('aria-hidden', 'true');
    axis.append(from, this.top, to);
    this.element = document.createElement('figure');
    this.element.className = 'graph';
    this.element.append(head, this.canvas, axis);
  }

  /**
   * @param {number[]} values oldest first
   * @param {number} [least] top of the scale at least
   */
  draw(values, least = 1) {
    const now = values.at(-1);
    const peak = Math.max(0, ...values);
    const top = niceTop(Math.max(peak, least));
    this.value.textContent = now === undefined ? '–' : this.format(now);
    this.top.textContent = now === undefined ? '' : `top ${this.format(top)}`;
    const low = values.length > 0 ? Math.min(...values) : 0;
    this.canvas.setAttribute('aria-label', now === undefined ? `${this.title}: nothing yet` :
      `${this.title} of the last two minutes: now ${this.format(now)}, between ${this.format(low)} and ` +
      this.format(peak));
    const context = prepare(this.canvas);
    if (!context) return;
    const { width, height } = size(this.canvas);
    context.save();
    context.globalAlpha = 0.18;
    context.lineWidth = 1;
    for (const part of [0, 0.5, 1]) {
      const y = Math.round(1 + part * (height - 3)) + 0.5;
      context.beginPath();
      context.moveTo(0, y);
      context.lineTo(width, y);
      context.stroke();
    }
    context.restore();
    line(context, values, { left: 0, top: 2, width, height: height - 4 }, top);
  }
}

/**
 * The next of 1, 2, 5, 10, ... times a power of ten.
 *
 * @param {number} value
 */
export function niceTop(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  const digit = [1, 1.5, 2, 3, 5, 7.5, 10].find((candidate) => candidate * power >= value * 0.9999) ?? 10;
  return digit * power;
}

/** @param {HTMLCanvasElement} canvas */
function size(canvas) {
  return { width: canvas.clientWidth, height: canvas.clientHeight };
}

/**
 * Clears the canvas at the resolution of the screen; `null` while it is not shown.
 *
 * @param {HTMLCanvasElement} canvas
 */
function prepare(canvas) {
  const { width, height } = size(canvas);
  const context = canvas.getContext('2d');
  if (width === 0 || height === 0 || !context) return null;
  const ratio = window.devicePixelRatio || 1;
  const [pixelsWide, pixelsHigh] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== pixelsWide || canvas.height !== pixelsHigh) {
    canvas.width = pixelsWide;
    canvas.height = pixelsHigh;
  }
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  const color = getComputedStyle(canvas).color;
  context.strokeStyle = color;
  context.fillStyle = color;
  return context;
}

/**
 * @param {CanvasRenderingContext2D} context
 * @param {number[]} values
 * @param {{left: number, top: number, width: number, height: number}} box
 * @param {number} top
 */
function line(context, values, box, top) {
  context.globalAlpha = 0.3;
  context.fillRect(box.left, box.top + box.height, box.width, 1);
  context.globalAlpha = 1;
  if (values.length < 2) return;
  const step = box.width / (HISTORY_MAX - 1);
  const first = HISTORY_MAX - values.length;
  const x = (/** @type {number} */ index) => box.left + (first + index) * step;
  const y = (/** @type {number} */ value) => box.top + box.height * (1 - Math.min(1, value / top));
  context.beginPath();
  for (const [index, value] of values.entries()) {
    if (index === 0) context.moveTo(x(index), y(value));
    else context.lineTo(x(index), y(value));
  }
  context.lineWidth = 1.4;
  context.lineJoin = 'round';
  context.stroke();
  context.lineTo(x(values.length - 1), box.top + box.height);
  context.lineTo(x(0), box.top + box.height);
  context.closePath();
  context.globalAlpha = 0.14;
  context.fill();
  context.globalAlpha = 1;
}
