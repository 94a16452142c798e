/** Forbids of streams and addresses: list, add, resume. */

import * as api from '../api.js';
import { confirm, scopeSelect, spanSelect } from '../dialogs.js';
import { Keyed, h, setText } from '../dom.js';
import { moment, plural } from '../format.js';
import { act, cell, row, table } from './parts.js';

export class BansView {
  /** @param {import('../store.js').Store} store */
  constructor(store) {
    this.store = store;
    this.title = 'Bans';
    this.count = h('p', { class: 'count', role: 'status' });
    this.outcome = h('p', { class: 'outcome', role: 'status' });
    const { element, body } = table('Bans', ['Target', 'Forbidden', 'Since', 'Until', 'Reason', 'Action'], 'bans');
    this.table = element;
    this.rows = new Keyed(body, (/** @type {api.Forbid} */ ban) => ban.target, () => new BanRow(this));
    this.target = h('input', {
      id: 'ban-target', autocomplete: 'off', required: true, placeholder: 'live/cam or 203.0.113.0/24',
      'aria-describedby': 'ban-help',
    });
    this.domain = h('input', { id: 'ban-domain', autocomplete: 'off', placeholder: 'default', list: 'ban-domains' });
    this.domains = h('datalist', { id: 'ban-domains' });
    this.scope = scopeSelect('ban-scope');
    this.length = spanSelect('ban-span');
    this.reason = h('input', { id: 'ban-reason', maxlength: 250, autocomplete: 'off' });
    this.button = h('button', { class: 'danger' }, 'Forbid');
    const field = (/** @type {string} */ label, /** @type {HTMLElement} */ control) =>
      h('p', { class: 'field' }, h('label', { for: control.id }, label), control);
    this.element = h('div', { class: 'view' }, h('h1', {}, 'Bans'),
      h('form', {
        class: 'panel form',
        onsubmit: (/** @type {SubmitEvent} */ event) => {
          event.preventDefault();
          void this.forbid();
        },
      }, field('Stream or address', this.target), field('Domain of the stream', this.domain), this.domains,
      field('Forbidden', this.scope), field('For', this.length), field('Reason', this.reason),
      h('div', { class: 'actions' }, this.button)),
      h('p', { class: 'soft', id: 'ban-help' }, 'A stream is APP/NAME; an address may be a network. Those whom it concerns are cut at once.'),
      this.outcome, this.count, this.table);
  }

  update() {
    const { forbids, server, domains } = this.store;
    this.rows.update(forbids);
    this.table.hidden = forbids.length === 0;
    const memory = server && !server.forbids_persist && forbids.length > 0
      ? ' They last until the server ends: access.store is not set.' : '';
    setText(this.count, forbids.length === 0 ? 'Nobody is forbidden.' : `${plural(forbids.length, 'ban')}.${memory}`);
    if (this.domains.childElementCount !== domains.length) {
      this.domains.replaceChildren(...domains.map(({ name }) => h('option', { value: name })));
    }
  }

  async forbid() {
    const text = this.target.value.trim();
    const isAddress = /^[0-9a-fA-F.:]+(\/\d+)?$/.test(text) && /[.:]/.test(text);
    const cut = text.lastIndexOf('/');
    /** @type {{address: string} | {domain: string, app?: string, stream: string}} */
    const target = isAddress ? { address: text } : {
      domain: this.domain.value.trim() || 'default', stream: text.slice(cut + 1),
      ...(cut > 0 ? { app: text.slice(0, cut) } : {}),
    };
    await act(this.button, this.outcome, async () => {
      const answer = await api.forbid({
        ...target, scope: this.scope.value, reason: this.reason.value.trim(),
        ...(this.length.value === '' ? {} : { for_s: Number(this.length.value) }),
      });
      await this.store.polls.forbids.now();
      this.target.value = '';
      return `${answer.target} is forbidden; ${plural(answer.cut, 'connection')} cut`;
    });
  }
}

class BanRow {
  /** @param {BansView} owner */
  constructor(owner) {
    this.owner = owner;
    /** @type {api.Forbid | null} */
    this.ban = null;
    this.target = cell('Target');
    this.scope = cell('Forbidden');
    this.since = cell('Since');
    this.until = cell('Until');
    this.reason = cell('Reason');
    this.button = h('button', { type: 'button', class: 'small' }, 'Resume');
    this.button.addEventListener('click', () => void this.resume());
    this.element = row(this.target, this.scope, this.since, this.until, this.reason, cell('Action', this.button));
  }

  /** @param {api.Forbid} ban */
  update(ban) {
    this.ban = ban;
    setText(this.target, ban.target);
    setText(this.scope, ban.scope === 'all' ? 'publish and play' : ban.scope);
    setText(this.since, moment(ban.since_s));
    setText(this.until, ban.until_s === null ? 'resumed' : moment(ban.until_s));
    setText(this.reason, ban.reason || '–');
    this.button.setAttribute('aria-label', `Resume ${ban.target}`);
  }

  async resume() {
    const { ban, owner } = this;
    if (!ban || !await confirm(`Resume ${ban.target}?`, 'It may be published and played again at once.', 'Resume')) return;
    await act(this.button, owner.outcome, async () => {
      await api.resume(ban.target);
      await owner.store.polls.forbids.now();
      return `${ban.target} is resumed`;
    });
  }
}
