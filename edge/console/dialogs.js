/**
 * Questions and QR codes, as modal dialogs of the browser: they hold the focus, Escape closes them, and the
 * focus goes back to where it was.
 */

import * as api from './api.js';
import { copyButton, h } from './dom.js';

let serial = 0;

/**
 * Shows a dialog and resolves when it is closed. Its forms are of method `dialog`.
 *
 * @param {string} title
 * @param {...import('./dom.js').Child} content
 * @returns {{dialog: HTMLDialogElement, closed: Promise<string>}}
 */
function open(title, ...content) {
  const id = `dialog-${serial += 1}`;
  const dialog = h('dialog', { 'aria-labelledby': id }, h('h2', { id }, title), ...content);
  document.getElementById('dialogs')?.append(dialog);
  /** @type {Promise<string>} */
  const closed = new Promise((resolve) => {
    dialog.addEventListener('close', () => {
      dialog.remove();
      resolve(dialog.returnValue);
    });
  });
  // A click beside the dialog closes it as Escape does.
  dialog.addEventListener('click', (event) => {
    if (event.target === dialog) dialog.close('');
  });
  dialog.showModal();
  return { dialog, closed };
}

/**
 * Asks before something is done that others notice.
 *
 * @param {string} title
 * @param {string} text
 * @param {string} action what the button says
 * @returns {Promise<boolean>}
 */
export async function confirm(title, text, action) {
  const { closed } = open(title, h('p', {}, text), h('form', { method: 'dialog', class: 'actions' },
    h('button', { value: '' , autofocus: true }, 'Cancel'),
    h('button', { value: 'yes', class: 'danger' }, action)));
  return (await closed) === 'yes';
}

/**
 * Asks for the admin token; resolves when there is one. There is no way past it but to leave the page.
 *
 * @param {string | null} problem
 */
export async function askForToken(problem) {
  for (;;) {
    const field = h('input', {
      id: 'token', type: 'password', autocomplete: 'current-password', required: true, autofocus: true,
      'aria-describedby': 'token-help',
    });
    const { closed } = open('Admin token',
      h('form', { method: 'dialog', class: 'stack' },
        h('p', { id: 'token-help' }, problem ?? 'This server asks for its admin token (admin.token of its ' +
          'configuration). It is kept in this tab until the tab is closed.'),
        h('label', { for: 'token' }, 'Token'), field,
        h('div', { class: 'actions' }, h('button', { value: 'yes', class: 'primary' }, 'Sign in'))));
    const answer = await closed;
    if (answer === 'yes' && field.value.trim() !== '') {
      api.setToken(field.value.trim());
      return;
    }
  }
}

/**
 * Shows an address as a QR code.
 *
 * @param {string} title
 * @param {string} address
 */
export async function showQr(title, address) {
  const image = h('img', { alt: `QR code of the address ${address}`, width: 260, height: 260 });
  const status = h('p', { role: 'status' }, '');
  const { closed } = open(title, h('div', { class: 'qr' }, image), status, h('p', { class: 'address' }, address),
    h('form', { method: 'dialog', class: 'actions' }, copyButton(() => address, 'Copy the address'),
      h('button', { value: '', autofocus: true }, 'Close')));
  try {
    const svg = await api.qr(address);
    image.src = `data:image/svg+xml,${encodeURIComponent(svg)}`;
  } catch (error) {
    image.remove();
    status.textContent = error instanceof Error ? error.message : String(error);
  }
  await closed;
}

const SPANS = /** @type {const} */ ([
  ['600', '10 minutes'], ['3600', '1 hour'], ['86400', '1 day'], ['604800', '1 week'], ['', 'until it is resumed'],
]);

/** Choices of how long a forbid lasts. @param {string} id */
export function spanSelect(id) {
  const options = SPANS.map(([value, text]) => h('option', { value, selected: value === '3600' }, text));
  return h('select', { id }, ...options);
}

const SCOPES = /** @type {const} */ ([
  ['all', 'publish and play'], ['publish', 'publish'], ['play', 'play'],
]);

/** Choices of what is forbidden. @param {string} id */
export function scopeSelect(id) {
  return h('select', { id }, ...SCOPES.map(([value, text]) => h('option', { value }, text)));
}

/**
 * Asks how a stream or an address is to be forbidden, and forbids it.
 *
 * @param {string} what how it is called
 * @param {{domain?: string, app?: string, stream?: string, address?: string}} target
 * @returns {Promise<string | null>} what was done, or `null` if it was not
 */
export async function forbid(what, target) {
  const scope = scopeSelect('forbid-scope');
  const length = spanSelect('forbid-span');
  const reason = h('input', { id: 'forbid-reason', maxlength: 250, autocomplete: 'off' });
  const { closed } = open(`Forbid ${what}`,
    h('form', { method: 'dialog', class: 'stack' },
      h('p', {}, 'Whoever does it now is cut at once; whoever tries is refused until then.'),
      h('label', { for: 'forbid-scope' }, 'Forbidden'), scope,
      h('label', { for: 'forbid-span' }, 'For'), length,
      h('label', { for: 'forbid-reason' }, 'Reason (shown to those who are refused)'), reason,
      h('div', { class: 'actions' }, h('button', { value: '', formnovalidate: true }, 'Cancel'),
        h('button', { value: 'yes', class: 'danger' }, 'Forbid'))));
  if ((await closed) !== 'yes') return null;
  const answer = await api.forbid({
    ...target,
    scope: scope.value,
    ...(length.value === '' ? {} : { for_s: Number(length.value) }),
    reason: reason.value.trim(),
  });
  const missing = answer.missing_workers.length > 0 ? `; worker ${answer.missing_workers.join(', ')} did not answer` : '';
  return `${what} is forbidden; ${answer.cut} cut${missing}`;
}
