/** Certificates: whom they are for, until when, and what is wrong with them. */

import { Keyed, h, setText } from '../dom.js';
import { plural, span } from '../format.js';
import { ofCertificate } from '../health.js';
import { badge, cell, row, table } from './parts.js';

/** @typedef {import('../api.js').Certificate} Certificate */

export class CertificatesView {
  /** @param {import('../store.js').Store} store */
  constructor(store) {
    this.store = store;
    this.title = 'Certificates';
    this.count = h('p', { class: 'count', role: 'status' });
    const { element, body } = table('Certificates', ['Name', 'State', 'Ends', 'Host names', 'Issuer', 'Key', 'Remarks'],
      'certificates');
    this.table = element;
    this.rows = new Keyed(body, (/** @type {Certificate} */ one) => one.name, () => new CertificateRow());
    this.element = h('div', { class: 'view' }, h('h1', {}, 'Certificates'), this.count, this.table);
  }

  update() {
    const { certificates, server, errors } = this.store;
    // Those that end first come first.
    const sorted = [...certificates].sort((a, b) => (a.not_after_unix_s ?? 0) - (b.not_after_unix_s ?? 0));
    this.rows.update(sorted);
    this.table.hidden = sorted.length === 0;
    const error = errors.get('certificates');
    const tls = server && server.listen.rtmps !== null
      ? ` TLS on ${server.listen.rtmps}, records made by ${server.kernel_tls ? 'the kernel where it can' : 'the server'}.` : '';
    setText(this.count, error ? `No list: ${error.message}` : sorted.length === 0
      ? 'No certificates: start with --tls-dir DIR, or set tls.dir, to serve RTMPS and HTTPS.'
      : `${plural(sorted.length, 'certificate')}.${tls}`);
  }
}

class CertificateRow {
  constructor() {
    this.name = cell('Name');
    this.state = cell('State');
    this.day = h('span');
    this.left = h('span', { class: 'soft block' });
    this.ends = cell('Ends', this.day, this.left);
    this.names = cell('Host names');
    this.issuer = cell('Issuer');
    this.key = cell('Key');
    this.remarks = cell('Remarks');
    this.element = row(this.name, this.state, this.ends, this.names, this.issuer, this.key, this.remarks);
  }

  /** @param {Certificate} one */
  update(one) {
    const [reason] = ofCertificate(one, Date.now());
    const state = one.state.replaceAll('_', ' ');
    if (this.state.textContent !== state || this.state.firstElementChild?.classList.contains('good') === Boolean(reason)) {
      this.state.replaceChildren(badge(reason?.severity ?? 'good', state));
    }
    setText(this.name, one.is_default ? `${one.name} (default)` : one.name);
    const left = one.not_after_unix_s === null ? null : one.not_after_unix_s * 1000 - Date.now();
    setText(this.day, one.not_after?.slice(0, 10) ?? '–');
    setText(this.left, left === null ? '' : left > 0 ? `in ${span(left)}` : `${span(-left)} ago`);
    const shown = one.names.slice(0, 4).join(', ');
    setText(this.names, one.names.length > 4 ? `${shown} and ${one.names.length - 4} more` : shown || '–');
    setText(this.issuer, one.issuer ?? '–');
    setText(this.key, one.key_type ?? '–');
    setText(this.remarks, [one.error ?? '', ...one.warnings].filter((text) => text !== '').join('; ') || '–');
  }
}
