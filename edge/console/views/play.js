/**
 * One stream: its picture, figures, addresses and clients, and what an operator can do to it. Without a stream:
 * plays any address.
 */

import * as api from '../api.js';
import { confirm, forbid } from '../dialogs.js';
import { Keyed, fill, h, setAttribute, setText } from '../dom.js';
import { bitrate, bytes, delay, frames, number, plural, span } from '../format.js';
import { Graph } from '../graph.js';
import { Player, playsHls } from '../player.js';
import { hrefOf, titleOf } from '../store.js';
import { named, playAddresses, signing, usable, webSocketOf } from '../urls.js';
import { UrlList, act, badge, formatOf, showReasons } from './parts.js';
import { ClientTable } from './clients.js';

/** Signed addresses are asked for again after this time, so that those shown can still be used. */
const ADDRESSES_MS = 60 * 60_000;

export class PlayView {
  /**
   * @param {import('../store.js').Store} store
   * @param {import('../main.js').Place} place
   */
  constructor(store, place) {
    const words = place.path.slice(1);
    const inner = words.length >= 2
      ? new StreamPage(store, {
        vhost: place.query.get('vhost') ?? 'default', app: words.slice(0, -1).join('/'), name: words.at(-1) ?? '',
      })
      : new AnyPage(store, place.query.get('url') ?? '');
    this.inner = inner;
    this.title = inner.title;
    this.element = inner.element;
  }

  update() {
    this.inner.update();
  }

  dispose() {
    this.inner.dispose();
  }
}

/** The video element with what is said about it. */
class Screen {
  constructor() {
    this.video = h('video', { controls: true, playsinline: true, muted: true, 'aria-label': 'Live picture' });
    this.video.muted = true;
    this.player = new Player(this.video, () => this.update());
    this.status = h('p', { class: 'player-status', role: 'status' });
    this.again = h('button', { type: 'button', class: 'small', onclick: () => this.retry() }, 'Try again');
    this.live = h('button', { type: 'button', class: 'small', onclick: () => this.player.toLiveEdge() }, 'To live');
    this.figures = h('p', { class: 'player-figures' });
    this.lastBytes = { at: performance.now(), bytes: 0, rate: 0 };
    this.element = h('div', { class: 'screen' },
      h('div', { class: 'frame' }, this.video),
      h('div', { class: 'player-bar' }, this.status, this.again, this.live), this.figures);
    this.update();
  }

  retry() {
    const { source } = this.player;
    if (source) this.player.play(source);
  }

  update() {
    const { player, video } = this;
    const words = {
      idle: 'stopped', connecting: 'connecting', waiting: 'waiting', playing: 'playing', stalled: 'stalled',
      retrying: 'trying again', refused: 'refused', unsupported: 'cannot play',
    };
    setText(this.status, player.text === '' ? words[player.phase] : `${words[player.phase]}: ${player.text}`);
    const severity = { playing: 'good', refused: 'bad', unsupported: 'bad', retrying: 'warn', stalled: 'warn' };
    this.status.dataset.severity = /** @type {Record<string, string>} */ (severity)[player.phase] ?? 'note';
    this.element.dataset.phase = player.phase;
    this.again.hidden = !(player.phase === 'refused' || player.phase === 'retrying');
    const behind = player.behindS;
    this.live.hidden = behind === null || behind < 3;
    setText(this.figures, player.phase === 'idle' ? '' : this.figuresText(video, behind));
  }

  /** @param {HTMLVideoElement} video @param {number | null} behind */
  figuresText(video, behind) {
    const now = performance.now();
    const last = this.lastBytes;
    if (now - last.at >= 1_000) {
      const rate = Math.max(0, (this.player.bytes - last.bytes) * 8_000 / (now - last.at));
      this.lastBytes = { at: now, bytes: this.player.bytes, rate };
    }
    const quality = video.getVideoPlaybackQuality();
    const parts = [
      video.videoWidth > 0 ? `${video.videoWidth}×${video.videoHeight}` : '',
      behind === null ? '' : `${behind.toFixed(1)} s buffered`,
      this.player.source?.kind === 'ws' && this.lastBytes.rate > 0 ? bitrate(this.lastBytes.rate) : '',
      quality.totalVideoFrames > 0 ? plural(quality.droppedVideoFrames, 'frame') + ' dropped here' : '',
      this.player.connections > 1 ? `${this.player.connections} connections` : '',
    ];
    return parts.filter((part) => part !== '').join(' · ');
  }

  dispose() {
    this.player.dispose();
  }
}

/** A choice between the two ways to play, as radio buttons. */
class KindChoice {
  /** @param {() => void} onChange @param {HTMLVideoElement} video */
  constructor(onChange, video) {
    const choice = (/** @type {string} */ value, /** @type {string} */ text, /** @type {boolean} */ checked) => {
      const input = h('input', { type: 'radio', name: 'kind', value, checked, onchange: onChange });
      return { input, label: h('label', {}, input, text) };
    };
    this.ws = choice('ws', 'WebSocket', true);
    this.hls = choice('hls', playsHls(video) ? 'HLS' : 'HLS (not in this browser)', false);
    this.element = h('fieldset', { class: 'choice' }, h('legend', { class: 'unseen' }, 'Play by'),
      this.ws.label, this.hls.label);
  }

  /** @returns {'ws' | 'hls'} */
  get value() {
    return this.hls.input.checked ? 'hls' : 'ws';
  }
}

/** One stream of the server. */
class StreamPage {
  /**
   * @param {import('../store.js').Store} store
   * @param {{vhost: string, app: string, name: string}} path
   */
  constructor(store, path) {
    this.store = store;
    this.path = path;
    this.title = titleOf(path);
    this.screen = new Screen();
    this.choice = new KindChoice(() => this.play(), this.screen.video);
    this.domain = h('select', { id: 'play-domain', onchange: () => void this.ask() });
    this.domainLabel = h('label', { for: 'play-domain' }, 'Domain');
    this.urls = new UrlList();
    this.urlNote = h('p', { class: 'soft' });
    /** @type {api.AddressSet} */
    this.set = {};
    this.askedAt = 0;
    this.asking = false;
    /** @type {string | null} */
    this.playing = null;
    this.wasForbidden = false;

    this.state = h('span');
    this.why = h('p', { class: 'why' });
    this.graphs = {
      bitrate: new Graph('Bit rate', bitrate, 'rate'),
      fps: new Graph('Frame rate', frames, 'fps'),
      viewers: new Graph('Viewers', number, 'viewers'),
      lag: new Graph('Largest lag', delay, 'lag'),
    };
    this.facts = h('dl', { class: 'facts' });
    this.outcome = h('p', { class: 'outcome', role: 'status' });
    this.forbidButton = h('button', { type: 'button', class: 'danger' }, 'Forbid…');
    this.forbidButton.addEventListener('click', () => void this.forbid());
    this.kickButton = h('button', { type: 'button' }, 'Kick publisher…');
    this.kickButton.addEventListener('click', () => void this.kickPublisher());
    this.bans = h('ul', { class: 'plain' });
    this.banRows = new Keyed(this.bans, (/** @type {api.Forbid} */ ban) => ban.target, () => this.banRow());
    this.clients = new ClientTable(store, { vhost: path.vhost, app: path.app, stream: path.name });
    const graphs = Object.values(this.graphs).map((graph) => graph.element);
    this.element = h('div', { class: 'view' },
      h('div', { class: 'title' }, h('h1', {}, this.title), this.state, h('div', { class: 'buttons' },
        this.kickButton, this.forbidButton)),
      this.why, this.outcome, this.bans,
      h('div', { class: 'stage' },
        h('section', { class: 'panel', 'aria-label': 'Player' },
          h('div', { class: 'tools' }, this.choice.element, this.domainLabel, this.domain), this.screen.element),
        h('section', { class: 'panel graphs', 'aria-label': 'Graphs' }, ...graphs)),
      h('div', { class: 'columns' },
        h('section', { class: 'panel' }, h('h2', {}, 'Addresses to play'), this.urls.element, this.urlNote),
        h('section', { class: 'panel' }, h('h2', {}, 'Figures'), this.facts)),
      h('section', {}, h('h2', {}, 'Clients of this stream'), this.clients.element));
  }

  get stream() {
    const { vhost, app, name } = this.path;
    return this.store.streams.find((stream) => stream.vhost === vhost && stream.app === app && stream.name === name);
  }

  update() {
    const { stream, store } = this;
    const state = stream?.state ?? 'absent';
    const severity = { live: 'good', grace: 'bad', waiting: 'note', absent: 'note' };
    if (this.state.textContent !== state) {
      const text = state === 'absent' && store.status === null ? '…' : state;
      fill(this.state, badge(/** @type {any} */ (severity)[state], text));
    }
    if (stream) {
      showReasons(this.why, store.reasons(stream), 'nothing is wrong');
      const history = store.history(stream);
      this.graphs.bitrate.draw(history.bitrate.values, 1_000);
      this.graphs.fps.draw(history.fps.values, 10);
      this.graphs.viewers.draw(history.viewers.values, 4);
      this.graphs.lag.draw(history.lag.values, 500);
      this.showFacts(stream);
    } else {
      this.why.className = 'why note';
      setText(this.why, store.status ? 'There is no such stream now. It is played as soon as somebody publishes it.' :
        'Asking the server…');
      for (const graph of Object.values(this.graphs)) graph.draw([]);
      fill(this.facts, h('dt', {}, 'Nothing is published.'));
      this.facts.dataset.names = '';
    }
    this.kickButton.hidden = !stream?.publisher;
    const target = this.target;
    const bans = store.forbids.filter((ban) => ban.target === target);
    this.banRows.update(bans);
    if (this.wasForbidden && bans.length === 0) this.screen.retry();
    this.wasForbidden = bans.length > 0;
    this.updateDomains();
    if (store.server && Date.now() - this.askedAt > ADDRESSES_MS) void this.ask();
    this.clients.update();
  }

  /** As forbids of it are named. */
  get target() {
    return `stream:${this.path.vhost}/${this.path.app}/${this.path.name}`;
  }

  banRow() {
    const text = h('span');
    const button = h('button', { type: 'button', class: 'small' }, 'Resume');
    /** @type {api.Forbid | null} */
    let present = null;
    button.addEventListener('click', () => void act(button, this.outcome, async () => {
      if (!present) return null;
      await api.resume(present.target);
      await this.store.polls.forbids.now();
      return `${titleOf(this.path)} may be published and played again`;
    }));
    return {
      element: h('li', { class: 'ban' }, badge('bad', 'forbidden'), text, button),
      update: (/** @type {api.Forbid} */ ban) => {
        present = ban;
        const until = ban.until ? `until ${ban.until.replace('T', ' ').replace('Z', ' UTC')}` : 'until it is resumed';
        setText(text, [ban.scope === 'all' ? 'publish and play' : ban.scope, until, ban.reason]
          .filter((part) => part !== '').join(' · '));
      },
    };
  }

  updateDomains() {
    const how = signing(this.path, this.store.domains);
    const names = how.kind === 'signed' ? how.play : [];
    this.domain.hidden = names.length < 2;
    this.domainLabel.hidden = names.length < 2;
    if (this.domain.options.length === names.length) return;
    fill(this.domain, ...names.map((name) => h('option', { value: name }, name)));
    this.askedAt = 0;
  }

  /** Asks for addresses, and plays by them unless that is under way. */
  async ask() {
    const { server, domains } = this.store;
    if (!server || this.asking) return;
    // Which domains there are decides about signatures.
    if (server.has_domains && domains.length === 0) return;
    this.asking = true;
    this.askedAt = Date.now();
    try {
      const { set, note } = await playAddresses(this.path, domains, server, this.domain.value || null);
      this.set = set;
      this.urls.update(named(set));
      setText(this.urlNote, [note, server.listen.http === null ? 'Viewers’ HTTP is off (listen.http).' : '']
        .filter((part) => part !== '').join(' '));
      this.play();
    } catch (error) {
      setText(this.urlNote, `No address: ${error instanceof Error ? error.message : error}`);
      this.screen.player.is('refused', 'there is no address to play');
    } finally {
      this.asking = false;
    }
  }

  play() {
    const kind = this.choice.value;
    const made = kind === 'hls' ? this.set.hls : webSocketOf(this.set);
    const { server } = this.store;
    const url = made && server ? usable(made, server.listen, location.protocol) : undefined;
    const wanted = `${kind} ${url}`;
    if (url === undefined) {
      this.screen.player.stop();
      this.screen.player.is('unsupported', 'the server has no viewers’ HTTP (listen.http is off)');
    } else if (wanted !== this.playing || this.screen.player.phase === 'refused') {
      this.screen.player.play({ kind, url });
    }
    this.playing = wanted;
  }

  /** @param {api.Stream} stream */
  showFacts(stream) {
    const { codecs, size, gop } = formatOf(stream);
    const audio = [
      stream.audio_rate_hz === null ? '' : `${number(stream.audio_rate_hz)} Hz`,
      stream.audio_channels === null ? '' : plural(stream.audio_channels, 'channel'),
    ].filter((part) => part !== '').join(', ');
    const facts = /** @type {[string, string][]} */ ([
      ['Codecs', codecs], ['Picture', [size, gop].filter((part) => part !== '').join(' · ')], ['Sound', audio],
      ['Video', bitrate(stream.video_bitrate_bps)], ['Audio', bitrate(stream.audio_bitrate_bps)],
      ['Publisher', stream.publisher ? `${stream.publisher.peer} (${stream.publisher.id})` : '–'],
      ['Program', stream.publisher?.flash_ver ?? ''],
      ['Published', stream.state === 'live' ? `for ${span(stream.uptime_ms)}` : 'not now'],
      ['Received', bytes(stream.bytes_in)], ['Sent', `${bytes(stream.bytes_out)} to those who watch now`],
      ['Kept', `${bytes(stream.retained_bytes)}, ${delay(stream.retained_ms)}`], ['Home worker', number(stream.worker)],
    ]).filter(([, value]) => value !== '');
    const names = facts.map(([name]) => name).join();
    if (this.facts.dataset.names !== names) {
      this.facts.dataset.names = names;
      fill(this.facts, ...facts.flatMap(([name]) => [h('dt', {}, name), h('dd')]));
    }
    for (const [index, dd] of [...this.facts.querySelectorAll('dd')].entries()) setText(dd, facts[index]?.[1] ?? '');
  }

  async forbid() {
    const { vhost, app, name } = this.path;
    await act(this.forbidButton, this.outcome, async () => {
      const done = await forbid(titleOf(this.path), { domain: vhost, app, stream: name });
      await this.store.polls.forbids.now();
      return done;
    });
  }

  async kickPublisher() {
    const publisher = this.stream?.publisher;
    if (!publisher) return;
    const text = `${publisher.peer} is cut. An encoder usually comes again by itself; to keep it out, forbid the stream.`;
    if (!await confirm('Kick the publisher?', text, 'Kick')) return;
    await act(this.kickButton, this.outcome, async () => {
      await api.kick(publisher.id);
      return `publisher ${publisher.id} is being closed`;
    });
  }

  dispose() {
    this.screen.dispose();
    this.clients.dispose();
  }
}

/** Plays an address somebody pasted, of this server or another. */
class AnyPage {
  /** @param {import('../store.js').Store} store @param {string} url */
  constructor(store, url) {
    this.store = store;
    this.title = 'Player';
    this.screen = new Screen();
    this.field = h('input', {
      id: 'play-url', type: 'text', inputmode: 'url', autocomplete: 'off', spellcheck: 'false',
      placeholder: 'http://HOST:8080/live/cam.m3u8 or ws://HOST:8080/live/cam.mp4', value: url,
    });
    this.note = h('p', { class: 'outcome', role: 'alert' });
    this.list = h('ul', { class: 'plain links' });
    this.links = new Keyed(this.list, hrefOf, (/** @type {api.Stream} */ stream) => {
      const link = h('a', { href: hrefOf(stream) }, titleOf(stream));
      const text = h('span', { class: 'soft' });
      return {
        element: h('li', {}, link, ' ', text),
        update: (/** @type {api.Stream} */ now) => {
          const { codecs, size } = formatOf(now);
          setText(text, now.state === 'live' ? [codecs, size].filter((part) => part !== '').join(' · ') : now.state);
        },
      };
    });
    this.listTitle = h('h2', {}, 'Streams of this server');
    const form = h('form', {
      class: 'tools grow',
      onsubmit: (/** @type {SubmitEvent} */ event) => {
        event.preventDefault();
        this.play();
      },
    }, h('label', { for: 'play-url' }, 'Address'), this.field, h('button', { class: 'primary' }, 'Play'));
    this.element = h('div', { class: 'view' }, h('h1', {}, 'Player'), form, this.note,
      h('div', { class: 'stage' },
        h('section', { class: 'panel', 'aria-label': 'Player' }, this.screen.element),
        h('section', { class: 'panel' }, this.listTitle, this.list)));
    if (url !== '') this.play();
  }

  play() {
    const source = sourceOf(this.field.value.trim());
    setAttribute(this.field, 'aria-invalid', source ? null : 'true');
    setText(this.note, source ? '' : 'Give an address of HLS (http://….m3u8) or of fragmented MP4 over WebSocket ' +
      '(ws://….mp4). A browser plays neither RTMP nor FLV.');
    this.note.className = source ? 'outcome' : 'outcome bad';
    if (source) this.screen.player.play(source);
    else this.screen.player.stop();
  }

  update() {
    this.links.update(this.store.streams.slice(0, 50));
    this.listTitle.hidden = this.store.streams.length === 0;
  }

  dispose() {
    this.screen.dispose();
  }
}

/**
 * What an address is, by its path.
 *
 * @param {string} text
 * @returns {import('../player.js').Source | null}
 */
export function sourceOf(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return null;
  }
  if (/^https?:$/.test(url.protocol) && url.pathname.endsWith('.m3u8')) return { kind: 'hls', url: text };
  if (/^(wss?|https?):$/.test(url.protocol) && url.pathname.endsWith('.mp4')) {
    return { kind: 'ws', url: text.replace(/^http/i, 'ws') };
  }
  return null;
}
