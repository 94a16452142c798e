/** All streams with their graphs, and the figures of the whole server. */

import { Keyed, copyButton, fill, h, setAttribute, setText } from '../dom.js';
import { bitrate, delay, frames, number, percent, plural, span } from '../format.js';
import { Sparkline } from '../graph.js';
import { STREAMS_MAX, hrefOf, keyOf, titleOf } from '../store.js';
import { openAddresses, pageHost } from '../urls.js';
import { cell, formatOf, row, showReasons, table } from './parts.js';

/** Rows shown before a button asks for more. */
const ROWS_STEP = 100;

/** @typedef {import('../api.js').Stream} Stream */

const ORDERS = /** @type {const} */ ([
  ['name', 'name'], ['worst', 'problems first'], ['viewers', 'most viewers'], ['bitrate', 'highest bit rate'],
  ['newest', 'newest'],
]);

export class StreamsView {
  /** @param {import('../store.js').Store} store */
  constructor(store) {
    this.store = store;
    this.title = 'Streams';
    this.rowsMax = ROWS_STEP;
    this.tiles = [
      new Tile('Streams'), new Tile('Publishers'), new Tile('Viewers', 'viewers'), new Tile('HLS viewers'),
      new Tile('In', 'rate'), new Tile('Out', 'rate'), new Tile('Busiest worker', 'busy'),
    ];
    this.filter = h('input', {
      id: 'stream-filter', type: 'search', placeholder: 'name, app, vhost, codec, publisher', autocomplete: 'off',
      oninput: () => this.update(),
    });
    this.order = h('select', { id: 'stream-order', onchange: () => this.update() },
      ...ORDERS.map(([value, text]) => h('option', { value }, text)));
    this.count = h('p', { class: 'count', role: 'status' });
    const { element, body } = table('Streams', ['Stream', 'Health', 'Bit rate', 'Frame rate', 'Viewers', 'Lag',
      'Format', 'Publisher', 'Age'], 'streams');
    this.table = element;
    this.rows = new Keyed(body, keyOf, (/** @type {Stream} */ stream) => new StreamRow(stream, this.store));
    this.more = h('button', {
      type: 'button', class: 'more', onclick: () => { this.rowsMax += ROWS_STEP; this.update(); },
    }, 'Show more');
    this.empty = h('div', { class: 'empty' });
    this.tools = h('div', { class: 'tools' },
      h('label', { for: 'stream-filter', class: 'unseen' }, 'Filter streams'), this.filter,
      h('label', { for: 'stream-order' }, 'Order'), this.order, this.count);
    this.element = h('div', { class: 'view' }, h('h1', { class: 'unseen' }, 'Streams'),
      h('ul', { class: 'tiles' }, ...this.tiles.map((tile) => tile.element)),
      this.tools, this.table, this.more, this.empty);
  }

  update() {
    const { store } = this;
    this.updateTiles();
    const wanted = this.filter.value.trim().toLowerCase();
    const fits = store.streams.filter((stream) => wanted === '' || searchText(stream).includes(wanted));
    const sorted = this.sorted(fits);
    this.rows.update(sorted.slice(0, this.rowsMax));
    this.more.hidden = sorted.length <= this.rowsMax;
    setText(this.more, `Show more (${number(sorted.length - this.rowsMax)} left)`);
    const cut = store.streamsTotal > STREAMS_MAX ? ` of ${number(store.streamsTotal)}; the first ${STREAMS_MAX} are asked for` : '';
    setText(this.count, wanted === '' ? `${plural(store.streams.length, 'stream')}${cut}` :
      `${number(fits.length)} of ${plural(store.streams.length, 'stream')}${cut}`);
    const isEmpty = store.streams.length === 0;
    this.table.hidden = isEmpty;
    this.tools.hidden = isEmpty;
    this.empty.hidden = !isEmpty;
    if (isEmpty) this.showEmpty();
  }

  updateTiles() {
    const { status } = this.store;
    if (!status) return;
    const [streams, publishers, viewers, hls, ingress, egress, busy] = this.tiles;
    const [hlsViewers] = this.store.counters.named('ringcast_hls_viewers');
    streams?.set(number(status.streams));
    publishers?.set(number(status.publishers));
    viewers?.set(number(status.subscribers), this.store.viewers.values);
    hls?.set(number(hlsViewers?.value));
    ingress?.set(bitrate(this.store.ingress.values.at(-1)), this.store.ingress.values);
    egress?.set(bitrate(this.store.egress.values.at(-1)), this.store.egress.values);
    busy?.set(percent(this.store.busy.values.at(-1) ?? 0), this.store.busy.values);
  }

  /** @param {Stream[]} streams */
  sorted(streams) {
    const rank = { bad: 0, warn: 1, note: 2 };
    const worst = (/** @type {Stream} */ stream) => {
      const [first] = this.store.reasons(stream);
      return first ? rank[first.severity] : 3;
    };
    /** @type {Record<string, (stream: Stream) => number>} */
    const keys = {
      worst,
      viewers: (stream) => -stream.subscribers,
      bitrate: (stream) => -(stream.video_bitrate_bps + stream.audio_bitrate_bps),
      newest: (stream) => (stream.state === 'live' ? stream.uptime_ms : Infinity),
    };
    const key = keys[this.order.value];
    if (!key) return streams;
    return streams.map((stream) => ({ stream, key: key(stream) })).sort((a, b) => a.key - b.key)
      .map(({ stream }) => stream);
  }

  showEmpty() {
    const { server, status } = this.store;
    if (!status || !server) {
      fill(this.empty, h('p', {}, this.store.outage ? 'Nothing is known yet.' : 'Asking the server…'));
      this.empty.dataset.text = '';
      return;
    }
    const example = openAddresses(server.listen, pageHost(), 'live', 'publish').rtmp;
    const text = `${example} ${server.has_domains}`;
    if (this.empty.dataset.text === text) return;
    this.empty.dataset.text = text;
    if (server.has_domains) {
      fill(this.empty, h('h2', {}, 'No stream yet'), h('p', {}, 'Domains are configured: publish with an address of ' +
        'one of them. ', h('a', { href: '#/addresses' }, 'Make an address')));
    } else if (example === undefined) {
      fill(this.empty, h('h2', {}, 'No stream yet'), h('p', {}, 'RTMP is off (listen.rtmp), so nobody can publish.'));
    } else {
      const command = `ffmpeg -re -i FILE -c copy -f flv ${example}/mystream`;
      fill(this.empty, h('h2', {}, 'No stream yet'), h('p', {}, 'Any name will do; “mystream” is an example.'),
        h('dl', { class: 'facts' },
          h('dt', {}, 'OBS'), h('dd', {}, 'Settings → Stream → Custom. Server ', h('code', {}, example), ', stream key ',
            h('code', {}, 'mystream'), ' ', copyButton(() => example, 'Copy the server address')),
          h('dt', {}, 'ffmpeg'), h('dd', {}, h('code', {}, command), ' ',
            copyButton(() => command, 'Copy the ffmpeg command'))));
    }
  }

  dispose() {
    this.rows.clear();
  }
}

/** @param {Stream} stream */
function searchText(stream) {
  return [titleOf(stream), stream.state, stream.video_codec, stream.audio_codec, stream.publisher?.peer,
    stream.publisher?.flash_ver].join(' ').toLowerCase();
}

/** One figure of the server. */
class Tile {
  /** @param {string} title @param {string} [graph] kind of its graph, if it has one */
  constructor(title, graph) {
    this.value = h('strong', {}, '–');
    this.spark = graph === undefined ? null : new Sparkline(graph);
    this.least = graph === 'busy' ? 1 : graph === 'viewers' ? 4 : 1_000;
    this.element = h('li', { class: 'tile' }, h('span', {}, title), this.value, this.spark?.canvas);
  }

  /** @param {string} text @param {number[]} [values] */
  set(text, values) {
    setText(this.value, text);
    if (values) this.spark?.draw(values, this.least);
  }
}

/** One stream. */
class StreamRow {
  /** @param {Stream} stream @param {import('../store.js').Store} store */
  constructor(stream, store) {
    this.store = store;
    this.link = h('a', { href: hrefOf(stream), class: 'stream-name' }, titleOf(stream));
    this.state = h('span', { class: 'state' });
    this.why = h('span', { class: 'why' });
    this.sparks = {
      bitrate: new Sparkline('rate'), fps: new Sparkline('fps'), viewers: new Sparkline('viewers'),
      lag: new Sparkline('lag'),
    };
    this.bitrate = h('span', { class: 'figure' });
    this.fps = h('span', { class: 'figure' });
    this.viewers = h('span', { class: 'figure' });
    this.lag = h('span', { class: 'figure' });
    this.format = h('span');
    this.details = h('span', { class: 'soft' });
    this.peer = h('span');
    this.program = h('span', { class: 'soft' });
    this.age = cell('Age');
    this.element = row(
      cell('Stream', this.link, this.state),
      cell('Health', this.why),
      graphCell('Bit rate', this.bitrate, this.sparks.bitrate),
      graphCell('Frame rate', this.fps, this.sparks.fps),
      graphCell('Viewers', this.viewers, this.sparks.viewers),
      graphCell('Lag', this.lag, this.sparks.lag),
      cell('Format', this.format, this.details),
      cell('Publisher', this.peer, this.program),
      this.age,
    );
  }

  /** @param {Stream} stream */
  update(stream) {
    const history = this.store.history(stream);
    setText(this.state, stream.state);
    setAttribute(this.element, 'data-state', stream.state);
    showReasons(this.why, this.store.reasons(stream), 'good');
    setText(this.bitrate, bitrate(stream.video_bitrate_bps + stream.audio_bitrate_bps));
    setText(this.fps, stream.fps === null ? '–' : frames(stream.fps).replace(' fps', ''));
    setText(this.viewers, number(stream.subscribers));
    setText(this.lag, stream.subscribers === 0 ? '–' : delay(stream.lag_ms_max));
    this.sparks.bitrate.draw(history.bitrate.values, 1_000);
    this.sparks.fps.draw(history.fps.values, 10);
    this.sparks.viewers.draw(history.viewers.values, 4);
    this.sparks.lag.draw(history.lag.values, 500);
    const { codecs, size, gop } = formatOf(stream);
    setText(this.format, codecs);
    setText(this.details, [size, gop].filter((part) => part !== '').join(' · '));
    setText(this.peer, stream.publisher?.peer ?? '–');
    setText(this.program, stream.publisher?.flash_ver ?? '');
    setText(this.age, stream.state === 'live' ? span(stream.uptime_ms) : '–');
  }
}

/** @param {string} column @param {HTMLElement} figure @param {Sparkline} spark */
function graphCell(column, figure, spark) {
  const element = cell(column, figure, spark.canvas);
  element.classList.add('with-graph');
  return element;
}
