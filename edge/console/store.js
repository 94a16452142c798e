/**
 * What the page knows of the server: asked again and again, the last minutes kept for graphs.
 *
 * One question of a kind is under way at a time; the next one comes after a pause that grows with the time an
 * answer took, so a busy server is asked less. A hidden page asks rarely. Views listen to `change`.
 */

import * as api from './api.js';
import * as health from './health.js';
import { Counters } from './metrics.js';

/** Values kept for each graph: at one a second, two minutes. */
export const HISTORY_MAX = 120;
/** Streams asked for at once; beyond them the list says that it is cut. */
export const STREAMS_MAX = 1_000;
const HIDDEN_FACTOR = 10;
/** Pause after an answer, at least this many times what it took. */
const PAUSE_FACTOR = 4;

/** The last values of one figure. */
export class Series {
  constructor() {
    /** @type {number[]} oldest first */
    this.values = [];
  }

  /** @param {number} value */
  push(value) {
    this.values.push(value);
    if (this.values.length > HISTORY_MAX) this.values.shift();
  }
}

/** Figures of one stream over time. */
export class StreamHistory {
  constructor() {
    this.bitrate = new Series();
    this.fps = new Series();
    this.viewers = new Series();
    this.lag = new Series();
    /** Totals a minute ago and since. @type {{at: number, repairs: number, drops: number}[]} */
    this.totals = [];
    this.seenAt = 0;
  }

  /** @param {api.Stream} stream @param {number} now */
  take(stream, now) {
    this.bitrate.push(stream.video_bitrate_bps + stream.audio_bitrate_bps);
    this.fps.push(stream.fps ?? 0);
    this.viewers.push(stream.subscribers);
    this.lag.push(stream.lag_ms_max);
    this.totals.push({ at: now, repairs: stream.timestamp_repairs ?? 0, drops: stream.messages_dropped ?? 0 });
    while ((this.totals[0]?.at ?? now) < now - 60_000) this.totals.shift();
    this.seenAt = now;
  }

  /** @param {'repairs' | 'drops'} kind */
  lastMinute(kind) {
    return Math.max(0, (this.totals.at(-1)?.[kind] ?? 0) - (this.totals[0]?.[kind] ?? 0));
  }
}

/** @param {{vhost: string, app: string, name: string}} stream */
export function keyOf(stream) {
  return `${stream.vhost}/${stream.app}/${stream.name}`;
}

/** A question that is asked again and again. */
class Poll {
  /**
   * @param {number} intervalMs
   * @param {() => Promise<void>} ask
   */
  constructor(intervalMs, ask) {
    this.intervalMs = intervalMs;
    this.ask = ask;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.underWay = false;
    this.wanted = false;
  }

  start() {
    this.wanted = true;
    void this.now();
  }

  stop() {
    this.wanted = false;
    clearTimeout(this.timer);
  }

  /** Asks at once, if no question is under way. */
  async now() {
    if (this.underWay) return;
    clearTimeout(this.timer);
    this.underWay = true;
    const began = performance.now();
    try {
      await this.ask();
    } finally {
      this.underWay = false;
      const took = performance.now() - began;
      const pause = Math.max(this.intervalMs - took, took * PAUSE_FACTOR);
      if (this.wanted) {
        this.timer = setTimeout(() => void this.now(), pause * (document.hidden ? HIDDEN_FACTOR : 1));
      }
    }
  }
}

/** Fires `change` whenever something new is known. */
export class Store extends EventTarget {
  constructor() {
    super();
    /** @type {api.Status | null} */
    this.status = null;
    /** @type {api.ServerFacts | null} */
    this.server = null;
    /** @type {api.Stream[]} */
    this.streams = [];
    this.streamsTotal = 0;
    /** @type {number[]} */
    this.missingWorkers = [];
    /** @type {api.Certificate[]} */
    this.certificates = [];
    /** @type {api.Domain[]} */
    this.domains = [];
    /** @type {api.Forbid[]} */
    this.forbids = [];
    this.counters = new Counters();
    /** Bit rates of the whole server. */
    this.ingress = new Series();
    this.egress = new Series();
    this.viewers = new Series();
    this.busy = new Series();
    /** @type {Map<string, StreamHistory>} */
    this.histories = new Map();
    /** What the last question of each kind failed with. @type {Map<string, api.ApiError>} */
    this.errors = new Map();
    this.answeredAt = 0;
    /** @type {{at: number, ingress: number, egress: number} | null} */
    this.lastBytes = null;
    this.polls = {
      status: this.poll('status', 1_000, async () => this.takeStatus(await api.status())),
      streams: this.poll('streams', 1_000, async () => this.takeStreams(await api.streams({ limit: STREAMS_MAX }))),
      server: this.poll('server', 3_000, async () => { this.server = await api.server(); }),
      metrics: this.poll('metrics', 3_000, async () => this.counters.take(await api.metrics(), Date.now())),
      domains: this.poll('domains', 10_000, async () => { this.domains = (await api.domains()).items; }),
      forbids: this.poll('forbids', 5_000, async () => { this.forbids = (await api.forbids()).items; }),
      certificates: this.poll('certificates', 30_000, async () => {
        this.certificates = (await api.certificates()).items;
      }),
    };
  }

  start() {
    for (const poll of Object.values(this.polls)) poll.start();
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) for (const poll of Object.values(this.polls)) void poll.now();
    });
  }

  /**
   * @param {string} name
   * @param {number} intervalMs
   * @param {() => Promise<void>} ask
   */
  poll(name, intervalMs, ask) {
    return new Poll(intervalMs, async () => {
      try {
        await ask();
        this.errors.delete(name);
        this.answeredAt = Date.now();
      } catch (error) {
        if (!(error instanceof api.ApiError)) throw error;
        this.errors.set(name, error);
      }
      this.dispatchEvent(new Event('change'));
    });
  }

  /** @param {api.Status} status */
  takeStatus(status) {
    const at = performance.now();
    const { ingress_bytes: ingress, egress_bytes: egress } = status;
    const last = this.lastBytes;
    if (last && at > last.at && ingress >= last.ingress && egress >= last.egress) {
      const seconds = (at - last.at) / 1000;
      this.ingress.push(((ingress - last.ingress) * 8) / seconds);
      this.egress.push(((egress - last.egress) * 8) / seconds);
      this.viewers.push(status.subscribers);
      this.busy.push(Math.max(0, ...status.workers.map((worker) => worker.busy_ratio)));
    }
    this.lastBytes = { at, ingress, egress };
    this.status = status;
  }

  /** @param {api.Page<api.Stream>} page */
  takeStreams(page) {
    const now = Date.now();
    for (const stream of page.items) {
      const key = keyOf(stream);
      const history = this.histories.get(key) ?? new StreamHistory();
      history.take(stream, now);
      this.histories.set(key, history);
    }
    for (const [key, history] of this.histories) {
      if (history.seenAt < now - 60_000) this.histories.delete(key);
    }
    this.streams = page.items;
    this.streamsTotal = page.total;
    this.missingWorkers = page.missing_workers ?? [];
  }

  /** @param {api.Stream} stream */
  history(stream) {
    return this.histories.get(keyOf(stream)) ?? new StreamHistory();
  }

  /** @param {api.Stream} stream */
  reasons(stream) {
    const history = this.history(stream);
    return health.ofStream(stream, {
      bitrate: history.bitrate.values,
      fps: history.fps.values,
      lag: history.lag.values,
      repairs: history.lastMinute('repairs'),
      drops: history.lastMinute('drops'),
    });
  }

  /** All that is wrong, worst first. @returns {health.Reason[]} */
  allReasons() {
    const reasons = health.ofServer({
      status: this.status,
      server: this.server,
      certificates: this.certificates,
      domains: this.domains,
      missingWorkers: this.missingWorkers,
      lastMinute: (name, except) => this.counters.growthOf(name, except),
      nowMs: Date.now(),
    });
    for (const stream of this.streams) {
      for (const reason of this.reasons(stream)) {
        reasons.push({ ...reason, text: `${titleOf(stream)}: ${reason.text}`, href: hrefOf(stream) });
      }
    }
    return health.worstFirst(reasons);
  }

  /** The error that keeps everything from working, if there is one. */
  get outage() {
    const error = this.errors.get('status');
    return error && this.errors.get('streams') ? error : null;
  }
}

/** How a stream is called. @param {{vhost: string, app: string, name: string}} stream */
export function titleOf(stream) {
  const path = `${stream.app}/${stream.name}`;
  return stream.vhost === 'default' ? path : `${stream.vhost}/${path}`;
}

/** The page of a stream. @param {{vhost: string, app: string, name: string}} stream */
export function hrefOf(stream) {
  const path = [...stream.app.split('/'), stream.name].map(encodeURIComponent).join('/');
  const vhost = stream.vhost === 'default' ? '' : `?vhost=${encodeURIComponent(stream.vhost)}`;
  return `#/play/${path}${vhost}`;
}
