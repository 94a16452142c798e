/** The address generator: signed by the server's keys where domains are configured. */

import * as api from '../api.js';
import { fill, h, setText } from '../dom.js';
import { named, openAddresses, pageHost, usesTickets } from '../urls.js';
import { UrlList } from './parts.js';

const VALIDITIES = /** @type {const} */ ([
  ['', 'as the domain says'], ['3600', '1 hour'], ['43200', '12 hours'], ['86400', '1 day'], ['604800', '1 week'],
  ['2592000', '30 days'],
]);

export class AddressesView {
  /** @param {import('../store.js').Store} store */
  constructor(store) {
    this.store = store;
    this.title = 'Addresses';
    this.domain = h('select', { id: 'address-domain', onchange: () => this.showFields() });
    this.host = h('input', { id: 'address-host', autocomplete: 'off', required: true, value: pageHost() });
    this.role = h('select', { id: 'address-role' }, h('option', { value: 'publish' }, 'publish'),
      h('option', { value: 'play' }, 'play'));
    this.app = h('input', { id: 'address-app', autocomplete: 'off', required: true, value: 'live' });
    this.stream = h('input', {
      id: 'address-stream', autocomplete: 'off', required: true, placeholder: 'mystream', 'aria-describedby': 'stream-help',
    });
    this.user = h('input', { id: 'address-user', autocomplete: 'off' });
    this.validity = h('select', { id: 'address-validity' },
      ...VALIDITIES.map(([value, text]) => h('option', { value }, text)));
    this.fields = {
      domain: field('Domain', this.domain), host: field('Host', this.host), role: field('For', this.role),
      app: field('App', this.app), stream: field('Stream', this.stream), user: field('User', this.user),
      validity: field('Valid', this.validity),
    };
    this.note = h('p', { class: 'soft', id: 'stream-help' });
    this.problem = h('p', { class: 'outcome bad', role: 'alert' });
    this.resultTitle = h('h2', {}, '');
    this.resultNote = h('p', { class: 'soft' });
    this.urls = new UrlList();
    this.result = h('section', { class: 'panel', hidden: true, 'aria-live': 'polite' }, this.resultTitle,
      this.urls.element, this.resultNote);
    this.element = h('div', { class: 'view' }, h('h1', {}, 'Addresses'), this.note,
      h('form', {
        class: 'panel form',
        onsubmit: (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          void this.make();
        },
      }, ...Object.values(this.fields), h('div', { class: 'actions' }, h('button', { class: 'primary' }, 'Make addresses'))),
      this.problem, this.result);
    this.shown = '';
  }

  update() {
    const { domains } = this.store;
    const text = domains.map((domain) => `${domain.name} ${domain.spec.type}`).join();
    if (text === this.shown && this.shown !== '') return;
    this.shown = text;
    const chosen = this.domain.value;
    fill(this.domain, ...domains.map(({ name, spec }) =>
      h('option', { value: name, selected: name === chosen }, `${name} (${spec.type === 'push' ? 'publish' : 'play'})`)));
    this.showFields();
  }

  showFields() {
    const { domains } = this.store;
    const isSigned = domains.length > 0;
    this.fields.domain.hidden = !isSigned;
    this.fields.validity.hidden = !isSigned;
    this.fields.host.hidden = isSigned;
    this.fields.role.hidden = isSigned;
    this.fields.user.hidden = !isSigned || !usesTickets(domains, this.domain.value);
    setText(this.note, isSigned ? 'Signed with the keys of the domain; the keys stay in the server.' :
      'No domain is configured: everybody may publish and play, and addresses need no signature.');
  }

  async make() {
    const { server, domains } = this.store;
    if (!server) return;
    const [app, stream] = [this.app.value.trim().replace(/^\/+|\/+$/g, ''), this.stream.value.trim()];
    setText(this.problem, '');
    try {
      if (domains.length === 0) {
        const path = [...app.split('/'), stream].map(encodeURIComponent).join('/');
        const role = this.role.value === 'play' ? 'play' : 'publish';
        this.show(role, openAddresses(server.listen, this.host.value.trim(), path, role), '');
        return;
      }
      const spec = domains.find(({ name }) => name === this.domain.value)?.spec;
      const { role, scheme, addresses } = await api.addresses({
        domain: this.domain.value, role: spec?.type === 'play' ? 'play' : 'publish', app, stream,
        valid_s: this.validity.value === '' ? null : Number(this.validity.value),
        ...(this.fields.user.hidden ? {} : { user: this.user.value.trim() }),
      });
      const until = addresses.expires ? `A ${role} may begin until ${addresses.expires.replace('T', ' ').replace('Z', ' UTC')}; ` +
        'what runs is not cut then.' : 'They do not expire.';
      this.show(role, addresses, `Scheme ${scheme}. ${until}`);
    } catch (error) {
      this.result.hidden = true;
      setText(this.problem, error instanceof Error ? error.message : String(error));
    }
  }

  /** @param {'publish' | 'play'} role @param {api.AddressSet} set @param {string} note */
  show(role, set, note) {
    const urls = named(set);
    setText(this.resultTitle, role === 'publish' ? 'To publish' : 'To play');
    setText(this.resultNote, urls.length === 0 ? 'The server listens nowhere such an address could lead to.' : note);
    this.urls.update(urls);
    this.result.hidden = false;
  }
}

/** @param {string} label @param {HTMLElement} control */
function field(label, control) {
  return h('p', { class: 'field' }, h('label', { for: control.id }, label), control);
}
