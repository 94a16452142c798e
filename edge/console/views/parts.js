/** Parts that several views share. */

import { copyButton, fill, h, setAttribute, setText } from '../dom.js';
import { codec, delay } from '../format.js';
import { showQr } from '../dialogs.js';

/**
 * A table that becomes a list of cards on narrow screens; its roles are named, because that styling would
 * otherwise take them from screen readers.
 *
 * @param {string} caption
 * @param {string[]} columns
 * @param {string} [kind]
 */
export function table(caption, columns, kind = '') {
  const body = h('tbody', { role: 'rowgroup' });
  const heads = columns.map((name) => h('th', { scope: 'col', role: 'columnheader' }, name));
  const element = h('table', { class: `cards ${kind}`.trim(), role: 'table' },
    h('caption', { class: 'unseen' }, caption),
    h('thead', { role: 'rowgroup' }, h('tr', { role: 'row' }, ...heads)), body);
  return { element, body };
}

/**
 * A cell that knows its column, for the cards.
 *
 * @param {string} column
 * @param {...import('../dom.js').Child} children
 */
export function cell(column, ...children) {
  return h('td', { role: 'cell', 'data-label': column }, ...children);
}

/** A row. @param {...HTMLTableCellElement} cells */
export function row(...cells) {
  return h('tr', { role: 'row' }, ...cells);
}

/** A word with a colour of its own. @param {'good' | 'warn' | 'bad' | 'note'} severity @param {string} text */
export function badge(severity, text) {
  return h('span', { class: `badge ${severity}` }, text);
}

/**
 * Shows the worst reason, and the others as a tooltip and in words.
 *
 * @param {HTMLElement} element
 * @param {import('../health.js').Reason[]} reasons
 * @param {string} good
 */
export function showReasons(element, reasons, good) {
  const text = reasons.length > 0 ? reasons.map((reason) => reason.text).join(' · ') : good;
  element.className = `why ${reasons[0]?.severity ?? 'good'}`;
  setText(element, text);
}

/** Codecs, size and GOP in one line. @param {import('../api.js').Stream} stream */
export function formatOf(stream) {
  const size = stream.width !== null && stream.height !== null ? `${stream.width}×${stream.height}` : '';
  const codecs = [codec(stream.video_codec), codec(stream.audio_codec)].filter((name) => name !== '').join(' + ');
  return { codecs: codecs || '–', size, gop: stream.gop_ms === null ? '' : `GOP ${delay(stream.gop_ms)}` };
}

/** A list of addresses, each copied or shown as a QR code by a button. */
export class UrlList {
  constructor() {
    this.element = h('ul', { class: 'urls' });
    this.shown = '';
  }

  /** @param {import('../urls.js').NamedUrl[]} urls */
  update(urls) {
    const text = JSON.stringify(urls);
    if (text === this.shown) return;
    this.shown = text;
    fill(this.element, ...urls.map(({ name, url }) => h('li', {},
      h('span', { class: 'url-name' }, name),
      h('code', { class: 'address', tabindex: 0, 'aria-label': `${name} address` }, url),
      h('span', { class: 'buttons' },
        copyButton(() => url, `Copy the ${name} address`),
        h('button', {
          type: 'button', class: 'small', 'aria-label': `QR code of the ${name} address`,
          onclick: () => void showQr(`${name} address`, url),
        }, 'QR')))));
  }
}

/**
 * Runs what a button is there for: the button waits, an error is shown beside it.
 *
 * @param {HTMLButtonElement} button
 * @param {HTMLElement} output with role status or alert
 * @param {() => Promise<string | null>} action
 */
export async function act(button, output, action) {
  setAttribute(button, 'aria-disabled', 'true');
  output.className = 'outcome';
  try {
    const text = await action();
    if (text !== null) output.textContent = text;
  } catch (error) {
    output.className = 'outcome bad';
    output.textContent = error instanceof Error ? error.message : String(error);
  } finally {
    setAttribute(button, 'aria-disabled', null);
  }
}
