/** Who is connected, and the kick. */

import * as api from '../api.js';
import { confirm } from '../dialogs.js';
import { Keyed, h, setText } from '../dom.js';
import { bitrate, bytes, delay, number, plural, span } from '../format.js';
import { act, cell, row, table } from './parts.js';

/** Clients asked for at once; a filter finds the others. */
const CLIENTS_MAX = 500;
const INTERVAL_MS = 2_000;

/** @typedef {{vhost?: string, app?: string, stream?: string, role?: string}} Wanted */

/** A table of clients that asks by itself. */
export class ClientTable {
  /**
   * @param {import('../store.js').Store} store
   * @param {Wanted} wanted
   */
  constructor(store, wanted) {
    this.store = store;
    this.wanted = wanted;
    this.text = '';
    /** @type {api.Client[]} */
    this.items = [];
    this.total = 0;
    /** Bytes at the last question, for rates. @type {Map<string, {at: number, in: number, out: number}>} */
    this.last = new Map();
    /** @type {Map<string, {in: number, out: number}>} */
    this.rates = new Map();
    this.problem = '';
    this.count = h('p', { class: 'count', role: 'status' });
    this.outcome = h('p', { class: 'outcome', role: 'status' });
    const { element, body } = table('Clients', ['Id', 'Role', 'By', 'Stream', 'Address', 'Program', 'In', 'Out', 'Lag',
      'Skips', 'Connected', 'Action'], 'clients');
    this.table = element;
    this.rows = new Keyed(body, (/** @type {api.Client} */ client) => client.id, () => new ClientRow(this));
    this.element = h('div', {}, this.count, this.outcome, this.table);
    this.poll = store.poll('clients', INTERVAL_MS, () => this.ask());
    this.poll.start();
  }

  async ask() {
    const page = await api.clients({ ...this.wanted, limit: CLIENTS_MAX });
    const now = performance.now();
    /** @type {typeof this.last} */
    const last = new Map();
    for (const client of page.items) {
      const before = this.last.get(client.id);
      if (before && now > before.at) {
        const seconds = (now - before.at) / 1000;
        this.rates.set(client.id, {
          in: Math.max(0, client.bytes_in - before.in) * 8 / seconds,
          out: Math.max(0, client.bytes_out - before.out) * 8 / seconds,
        });
      }
      last.set(client.id, { at: now, in: client.bytes_in, out: client.bytes_out });
    }
    for (const id of this.rates.keys()) if (!last.has(id)) this.rates.delete(id);
    this.last = last;
    this.items = page.items;
    this.total = page.total;
  }

  /** @param {Wanted} wanted */
  setWanted(wanted) {
    this.wanted = wanted;
    void this.poll.now();
  }

  update() {
    const error = this.store.errors.get('clients');
    const fits = this.items.filter((client) => this.text === '' || searchText(client).includes(this.text));
    this.rows.update(fits);
    this.table.hidden = fits.length === 0;
    const cut = this.total > this.items.length ? ` (of ${number(this.total)}; choose a role or a stream to see others)` : '';
    setText(this.count, error ? `No list: ${error.message}` : fits.length === 0 ? 'Nobody is connected.' :
      `${plural(fits.length, 'client')}${cut}`);
  }

  dispose() {
    this.poll.stop();
  }
}

/** @param {api.Client} client */
function searchText(client) {
  return [client.id, client.peer, client.flash_ver, client.vhost, client.app, client.stream, client.role, client.protocol]
    .join(' ').toLowerCase();
}

class ClientRow {
  /** @param {ClientTable} owner */
  constructor(owner) {
    this.owner = owner;
    /** @type {api.Client | null} */
    this.client = null;
    this.id = cell('Id');
    this.role = cell('Role');
    this.protocol = cell('By');
    this.stream = cell('Stream');
    this.peer = cell('Address');
    this.program = cell('Program');
    this.in = cell('In');
    this.out = cell('Out');
    this.lag = cell('Lag');
    this.skips = cell('Skips');
    this.age = cell('Connected');
    this.button = h('button', { type: 'button', class: 'small danger' }, 'Kick');
    this.button.addEventListener('click', () => void this.kick());
    this.element = row(this.id, this.role, this.protocol, this.stream, this.peer, this.program, this.in, this.out, this.lag,
      this.skips, this.age, cell('Action', this.button));
  }

  /** @param {api.Client} client */
  update(client) {
    this.client = client;
    const rates = this.owner.rates.get(client.id);
    setText(this.id, client.id);
    setText(this.role, { undecided: 'undecided', publisher: 'publisher', subscriber: 'viewer' }[client.role]);
    setText(this.protocol, client.protocol);
    const vhost = client.vhost === null || client.vhost === 'default' ? '' : `${client.vhost}/`;
    setText(this.stream, client.app === null ? '–' : `${vhost}${client.app}${client.stream === null ? '' : `/${client.stream}`}`);
    setText(this.peer, client.peer);
    setText(this.program, client.flash_ver ?? '–');
    setText(this.in, rates && client.role === 'publisher' ? bitrate(rates.in) : bytes(client.bytes_in));
    setText(this.out, rates && client.role === 'subscriber' ? bitrate(rates.out) : bytes(client.bytes_out));
    setText(this.lag, delay(client.lag_ms));
    setText(this.skips, number(client.skips));
    this.skips.className = client.skips > 0 ? 'warn' : '';
    setText(this.age, span(client.uptime_ms));
    const name = `Kick ${client.role === 'subscriber' ? 'viewer' : client.role} ${client.id} at ${client.peer}`;
    if (this.button.getAttribute('aria-label') !== name) this.button.setAttribute('aria-label', name);
  }

  async kick() {
    const { client, owner } = this;
    if (!client) return;
    const text = `${client.peer} is cut at once. It may come again; to keep it out, forbid its address or the stream.`;
    if (!await confirm(`Kick ${client.id}?`, text, 'Kick')) return;
    await act(this.button, owner.outcome, async () => {
      await api.kick(client.id);
      await owner.poll.now();
      return `${client.id} is being closed`;
    });
  }
}

export class ClientsView {
  /**
   * @param {import('../store.js').Store} store
   * @param {import('../main.js').Place} place
   */
  constructor(store, place) {
    this.title = 'Clients';
    this.list = new ClientTable(store, {});
    this.role = h('select', { id: 'client-role', onchange: () => this.ask() },
      h('option', { value: '' }, 'any role'), h('option', { value: 'publisher' }, 'publishers'),
      h('option', { value: 'subscriber' }, 'viewers'), h('option', { value: 'undecided' }, 'undecided'));
    this.stream = h('input', {
      id: 'client-stream', type: 'search', placeholder: 'exact stream name', autocomplete: 'off',
      value: place.query.get('stream') ?? '', onchange: () => this.ask(),
    });
    this.filter = h('input', {
      id: 'client-filter', type: 'search', placeholder: 'address, id, program, protocol', autocomplete: 'off',
      oninput: () => {
        this.list.text = this.filter.value.trim().toLowerCase();
        this.list.update();
      },
    });
    this.element = h('div', { class: 'view' }, h('h1', { class: 'unseen' }, 'Clients'),
      h('div', { class: 'tools' },
        h('label', { for: 'client-filter', class: 'unseen' }, 'Filter clients'), this.filter,
        h('label', { for: 'client-stream' }, 'Stream'), this.stream,
        h('label', { for: 'client-role' }, 'Role'), this.role),
      this.list.element);
    if (this.stream.value !== '') this.ask();
  }

  ask() {
    const [role, stream] = [this.role.value, this.stream.value.trim()];
    this.list.setWanted({ ...(role === '' ? {} : { role }), ...(stream === '' ? {} : { stream }) });
  }

  update() {
    this.list.update();
  }

  dispose() {
    this.list.dispose();
  }
}
