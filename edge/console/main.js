/**
 * The console: asks the admin API, shows one view at a time, and what is wrong above each of them.
 *
 * Views are chosen by the part of the address after `#`, so that each can be linked and the browser's history
 * works. A view gets the store and an element; it is updated when something new is known.
 */

import * as api from './api.js';
import { askForToken } from './dialogs.js';
import { announce, fill, h, setText } from './dom.js';
import { bitrate, number, plural, span } from './format.js';
import { Store } from './store.js';
import { AddressesView } from './views/addresses.js';
import { BansView } from './views/bans.js';
import { CertificatesView } from './views/certificates.js';
import { ClientsView } from './views/clients.js';
import { LimitsView } from './views/limits.js';
import { PlayView } from './views/play.js';
import { StreamsView } from './views/streams.js';

/**
 * @typedef {object} View
 * @property {string} title
 * @property {HTMLElement} element
 * @property {() => void} update
 * @property {() => void} [dispose]
 */
/** @typedef {{path: string[], query: URLSearchParams}} Place */

/** @type {[string, string, new (store: Store, place: Place) => View][]} */
const VIEWS = [
  ['', 'Streams', StreamsView],
  ['play', 'Player', PlayView],
  ['clients', 'Clients', ClientsView],
  ['addresses', 'Addresses', AddressesView],
  ['bans', 'Bans', BansView],
  ['certificates', 'Certificates', CertificatesView],
  ['limits', 'Limits', LimitsView],
];
/** Reasons shown without asking for more. */
const REASONS_MAX = 50;

/** @param {string} id */
function byId(id) {
  const element = document.getElementById(id);
  if (!element) throw new Error(`no element ${id}`);
  return element;
}

/** `#/play/live/cam?vhost=x` as words and parameters. @returns {Place} */
function place() {
  const [path = '', query = ''] = location.hash.replace(/^#\/?/, '').split('?', 2);
  const words = path.split('/').filter((word) => word !== '').map((word) => {
    try {
      return decodeURIComponent(word);
    } catch {
      return word;
    }
  });
  return { path: words, query: new URLSearchParams(query) };
}

const store = new Store();
const main = byId('main');
/** @type {View | null} */
let view = null;

const links = VIEWS.map(([name, title]) => ({ name, link: h('a', { href: `#/${name}` }, title) }));
fill(byId('nav'), ...links.map(({ link }) => h('li', {}, link)));

function show() {
  const here = place();
  const [name, title, ViewClass] = VIEWS.find(([candidate]) => candidate === (here.path[0] ?? '')) ??
    /** @type {(typeof VIEWS)[number]} */ (VIEWS[0]);
  const isFirst = view === null;
  view?.dispose?.();
  view = new ViewClass(store, here);
  fill(main, view.element);
  for (const { name: of, link } of links) {
    if (of === name) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  links.find(({ name: of }) => of === name)?.link.scrollIntoView({ block: 'nearest', inline: 'nearest' });
  document.title = `${view.title === title ? title : view.title} – Ringcast`;
  view.update();
  if (!isFirst) {
    window.scrollTo(0, 0);
    main.focus({ preventScroll: true });
  }
}

const healthSummary = h('summary');
const healthCounts = h('span', { class: 'health-counts' });
const healthWorst = h('span', { class: 'health-worst' });
healthSummary.append(healthCounts, healthWorst);
const healthList = h('ul', { class: 'reasons' });
const health = h('details', {}, healthSummary, healthList);
byId('health').append(health);
let told = '';

/** @param {import('./health.js').Reason} reason */
function reasonItem({ severity, text, fix, href }) {
  const label = { bad: 'Error', warn: 'Warning', note: 'Note' }[severity];
  return h('li', { class: severity }, h('b', {}, label), h('span', {},
    href ? h('a', { href }, text) : text, fix ? h('span', { class: 'fix' }, h('code', {}, fix)) : null));
}

function showHealth() {
  const section = byId('health');
  const { outage } = store;
  if (outage) {
    section.dataset.severity = 'bad';
    setText(healthCounts, 'No answer');
    const since = store.answeredAt > 0 ? ` What is shown is ${span(Date.now() - store.answeredAt)} old.` : '';
    setText(healthWorst, `${capital(outage.message)}.${since}`);
    if (told !== 'outage') announce('The server does not answer');
    told = 'outage';
    document.body.classList.add('is-stale');
    fill(healthList);
    return;
  }
  document.body.classList.remove('is-stale');
  const reasons = store.allReasons();
  const count = (/** @type {string} */ severity) => reasons.filter((reason) => reason.severity === severity).length;
  const [bad, warn, note] = [count('bad'), count('warn'), count('note')];
  const worst = bad > 0 ? 'bad' : warn > 0 ? 'warn' : note > 0 ? 'note' : 'good';
  if (store.status) section.dataset.severity = worst;
  else delete section.dataset.severity;
  const parts = [
    bad > 0 ? plural(bad, 'error') : '', warn > 0 ? plural(warn, 'warning') : '', note > 0 ? plural(note, 'note') : '',
  ].filter((part) => part !== '');
  setText(healthCounts, parts.length > 0 ? parts.join(', ') : store.status ? 'All is well' : 'Asking the server');
  setText(healthWorst, reasons[0]?.text ?? '');
  const text = reasons.slice(0, REASONS_MAX).map((reason) => reason.severity + reason.text).join('\n');
  if (text !== healthList.dataset.text) {
    healthList.dataset.text = text;
    fill(healthList, ...reasons.slice(0, REASONS_MAX).map(reasonItem),
      reasons.length > REASONS_MAX ? h('li', {}, `and ${number(reasons.length - REASONS_MAX)} more`) : null);
  }
  const loud = reasons.filter((reason) => reason.severity === 'bad').map((reason) => reason.text).join('; ');
  if (loud !== '' && loud !== told) announce(loud);
  told = loud;
}

/** @param {string} text */
function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

function showServer() {
  const { status } = store;
  if (!status) return;
  const out = store.egress.values.at(-1);
  setText(byId('server'), [
    status.status === 'ready' ? `up ${span(status.uptime_ms)}` : status.status,
    out === undefined ? '' : `out ${bitrate(out)}`, `v${status.version}`,
  ].filter((part) => part !== '').join(' · '));
}

store.addEventListener('change', () => {
  showHealth();
  showServer();
  view?.update();
});
window.addEventListener('hashchange', show);
byId('skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});

let hasAsked = false;
api.onTokenWanted(async () => {
  const problem = hasAsked ? 'The server did not take this token. Try again.' : null;
  hasAsked = true;
  await askForToken(problem);
});

show();
store.start();
