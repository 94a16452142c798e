/** Limits with their use, what was dropped and refused, workers, host findings, and where the server listens. */

import { Keyed, fill, h, setText } from '../dom.js';
import { bytes, number, percent, span } from '../format.js';
import { MEMORY_STEPS } from '../health.js';
import { badge, cell, row, table } from './parts.js';

/** @typedef {import('../metrics.js').Sample} Sample */

/** Values of labels that tell of success. */
const GOOD = ['accepted', 'resumed', 'takeover', 'waiting', 'success', '101', '2xx', '3xx'];

/** What is counted, by heading; every label value of a counter is a line, those of success left out. */
const GROUPS = /** @type {const} */ ([
  ['Refused', [
    ['ringcast_access_denied_total', 'denied'], ['ringcast_publish_total', 'publish'], ['ringcast_play_total', 'play'],
    ['ringcast_http_answers_total', 'HTTP'], ['ringcast_hls_refused_total', 'HLS, a bound was met'],
    ['ringcast_hook_questions_refused_total', 'hook questions, queue full'],
  ]],
  ['Dropped and repaired', [
    ['ringcast_messages_dropped_total', 'messages dropped'], ['ringcast_payload_dropped_bytes_total', 'bytes dropped'],
    ['ringcast_timestamp_repairs_total', 'timestamp repairs'], ['ringcast_subscriber_skips_total', 'viewer skips'],
    ['ringcast_sends_blocked_total', 'sends that found the socket full'],
    ['ringcast_hls_overruns_total', 'HLS fell out of the ring'],
    ['ringcast_hls_segments_forgotten_total', 'HLS segments given up early'],
    ['ringcast_hls_forced_cuts_total', 'HLS segments without a keyframe'],
    ['ringcast_log_dropped_lines_total', 'log lines lost'], ['ringcast_events_dropped_total', 'worker events lost'],
  ]],
  ['Connections ended', [['ringcast_disconnects_total', '']]],
  ['Errors', [
    ['ringcast_protocol_errors_total', 'protocol'], ['ringcast_tls_errors_total', 'TLS'],
    ['ringcast_accept_errors_total', 'accepts failed'], ['ringcast_uring_overflows_total', 'queue overflows'],
    ['ringcast_worker_failures_total', 'workers failed'],
    ['ringcast_uring_no_buffers_total', 'receives without a buffer'],
    ['ringcast_config_reloads_total', 'configuration reload'],
  ]],
]);

export class LimitsView {
  /** @param {import('../store.js').Store} store */
  constructor(store) {
    this.store = store;
    this.title = 'Limits';
    this.limitList = h('ul', { class: 'meters' });
    this.limits = new Keyed(this.limitList, (/** @type {Meter} */ meter) => meter.name, () => new MeterRow());
    this.workerList = h('ul', { class: 'meters' });
    this.workers = new Keyed(this.workerList, (/** @type {Meter} */ meter) => meter.name, () => new MeterRow());
    this.memory = h('ul', { class: 'reasons', 'aria-label': 'Steps of shedding memory' });
    this.memoryLevel = h('p', { class: 'soft' });
    this.findings = h('ul', { class: 'reasons' });
    this.facts = h('dl', { class: 'facts' });
    this.counters = GROUPS.map(([heading, metrics]) => new CounterTable(heading, metrics));
    this.window = h('p', { class: 'soft' });
    this.element = h('div', { class: 'view' }, h('h1', {}, 'Limits'),
      h('div', { class: 'columns' },
        h('section', { class: 'panel' }, h('h2', {}, 'Use against maximum'), this.limitList),
        h('section', { class: 'panel' }, h('h2', {}, 'Workers, busy'), this.workerList),
        h('section', { class: 'panel' }, h('h2', {}, 'Server'), this.facts)),
      h('section', { class: 'panel' }, h('h2', {}, 'Memory budget'), this.memoryLevel, this.memory),
      h('section', { class: 'panel' }, h('h2', {}, 'Host'), this.findings),
      h('h2', {}, 'Counted since the start'), this.window,
      h('div', { class: 'columns four' }, ...this.counters.map((counter) => counter.element)));
  }

  update() {
    const { server, status, domains, counters } = this.store;
    /** @type {Meter[]} */
    const quotas = domains.flatMap((domain) => (/** @type {const} */ (['publishers', 'subscribers'])).flatMap((kind) => {
      const max = domain.spec[`${kind}_max`] ?? 0;
      return max === 0 ? [] : [{ name: `${domain.name}: ${kind}`, used: domain[kind], max, unit: 'count', setting: null }];
    }));
    this.limits.update([...(server?.limits ?? []), ...quotas]);
    this.workers.update((status?.workers ?? []).map((worker) => ({
      name: `worker ${worker.worker}`, used: worker.busy_ratio, max: 1, unit: 'ratio',
      setting: `${number(worker.connections)} connections${worker.healthy ? '' : ', does not turn'}`,
    })));
    for (const counter of this.counters) counter.update(counters);
    setText(this.window, `The second figure is what came in the last ${span(Math.min(60_000, counters.windowMs))}.`);
    if (server) this.showServer(server);
  }

  /** @param {import('../api.js').ServerFacts} server */
  showServer(server) {
    const { listen } = server;
    const facts = /** @type {[string, string][]} */ ([
      ['RTMP', listen.rtmp ?? 'off'], ['RTMPS', listen.rtmps ?? 'off'], ['Viewers’ HTTP', listen.http ?? 'off'],
      ['Admin', listen.admin ?? 'off'], ['Kernel interface', server.io === 'uring' ? 'io_uring' : 'epoll'],
      ['Kernel TLS', server.kernel_tls ? 'on' : 'off'], ['Resident memory', bytes(server.resident_bytes)],
      ['Bans', server.forbids_persist ? 'kept over restarts' : 'lost at a restart'],
    ]);
    if (this.facts.childElementCount === 0) {
      fill(this.facts, ...facts.flatMap(([name]) => [h('dt', {}, name), h('dd')]));
    }
    for (const [index, dd] of [...this.facts.querySelectorAll('dd')].entries()) setText(dd, facts[index]?.[1] ?? '');
    this.showMemory(server.memory);
    const text = JSON.stringify(server.findings);
    if (this.findings.dataset.text === text) return;
    this.findings.dataset.text = text;
    const items = server.findings.map(({ what, fix }) => h('li', { class: 'note' }, h('b', {}, 'Note'),
      h('span', {}, what, h('span', { class: 'fix' }, h('code', {}, fix)))));
    fill(this.findings, ...items);
    if (items.length === 0) fill(this.findings, h('li', {}, badge('good', 'good'), ' The host’s settings fit.'));
  }

  /** What is shed now, among all that would be. @param {import('../api.js').Memory | null} memory */
  showMemory(memory) {
    const steps = Object.entries(MEMORY_STEPS);
    setText(this.memoryLevel, memory === null ? 'Not known yet.'
      : `Level ${memory.level} of ${steps.length}: ${bytes(memory.used_bytes)} of ${bytes(memory.budget_bytes)} used.`);
    const level = String(memory?.level ?? 0);
    if (this.memory.dataset.level === level) return;
    this.memory.dataset.level = level;
    fill(this.memory, ...steps.map(([, text], index) => {
      const isShed = index < Number(level);
      return h('li', { class: isShed ? 'warn' : '' }, badge(isShed ? 'warn' : 'good', isShed ? 'shed' : 'not yet'),
        ` ${text}`);
    }));
  }
}

/**
 * @typedef {object} Meter
 * @property {string} name
 * @property {number} used
 * @property {number} max
 * @property {'count' | 'bytes' | 'ratio'} unit
 * @property {string | null} setting
 */

class MeterRow {
  constructor() {
    this.name = h('span', { class: 'meter-name' });
    this.text = h('span', { class: 'meter-text' });
    this.bar = h('span', { class: 'meter-bar' });
    this.setting = h('span', { class: 'soft' });
    this.meter = h('span', { class: 'meter', role: 'meter', 'aria-valuemin': 0, 'aria-valuemax': 100 }, this.bar);
    this.element = h('li', {}, this.name, this.text, this.meter, this.setting);
  }

  /** @param {Meter} meter */
  update({ name, used, max, unit, setting }) {
    const ratio = max > 0 ? Math.min(1, used / max) : 0;
    const show = unit === 'bytes' ? bytes : number;
    setText(this.name, name);
    setText(this.text, unit === 'ratio' ? percent(used) : `${show(used)} of ${show(max)}`);
    setText(this.setting, setting ?? '');
    this.bar.style.inlineSize = `${(ratio * 100).toFixed(1)}%`;
    this.element.className = ratio >= 0.95 ? 'bad' : ratio >= 0.8 ? 'warn' : '';
    this.meter.setAttribute('aria-label', name);
    this.meter.setAttribute('aria-valuenow', (ratio * 100).toFixed(0));
    this.meter.setAttribute('aria-valuetext', this.text.textContent ?? '');
  }
}

class CounterTable {
  /** @param {string} heading @param {readonly (readonly [string, string])[]} metrics */
  constructor(heading, metrics) {
    this.metrics = metrics;
    const { element, body } = table(heading, ['Counter', 'Total', 'Recent'], 'counters');
    this.table = element;
    this.none = h('p', { class: 'soft' }, 'None.');
    this.rows = new Keyed(body, (/** @type {CounterLine} */ line) => line.text, () => {
      const [name, total, recent] = [cell('Counter'), cell('Total'), cell('Recent')];
      return {
        element: row(name, total, recent),
        update: (/** @type {CounterLine} */ line) => {
          setText(name, line.text);
          setText(total, number(line.total));
          setText(recent, line.recent > 0 ? `+${number(line.recent)}` : '');
        },
      };
    });
    this.element = h('section', { class: 'panel' }, h('h2', {}, heading), this.table, this.none);
  }

  /** @param {import('../metrics.js').Counters} counters */
  update(counters) {
    /** @type {Map<string, CounterLine>} */
    const lines = new Map();
    for (const [name, title] of this.metrics) {
      for (const sample of counters.named(name)) {
        if (sample.value === 0 || GOOD.includes(sample.labels['result'] ?? sample.labels['status'] ?? '')) continue;
        const labels = Object.entries(sample.labels).filter(([label]) => label !== 'worker').map(([, value]) => value);
        const text = [title, labels.join(', ').replaceAll('_', ' ')].filter((part) => part !== '').join(': ');
        const line = lines.get(text) ?? { text, total: 0, recent: 0 };
        line.total += sample.value;
        line.recent += counters.growth(sample);
        lines.set(text, line);
      }
    }
    this.rows.update([...lines.values()]);
    this.table.hidden = lines.size === 0;
    this.none.hidden = lines.size > 0;
  }
}

/** @typedef {{text: string, total: number, recent: number}} CounterLine */
