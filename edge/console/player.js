/**
 * Plays one address in a video element: fragmented MP4 over WebSocket by Media Source, or HLS where the browser
 * has its own.
 *
 * Keeps near the live edge and the buffer bounded; comes again when the connection ends. Why a WebSocket was
 * refused is asked by plain HTTP of the same address: a page sees no more of it than a cut reason, or nothing.
 *
 * ```text
 *   idle ─► connecting ─► waiting ─► playing ◄─► stalled
 *                │           │          │
 *                ▼           ▼          ▼
 *     refused, unsupported   retrying ──┘ (after 1, 2, 4, 8 s)
 * ```
 */

/** @typedef {'idle' | 'connecting' | 'waiting' | 'playing' | 'stalled' | 'retrying' | 'refused' | 'unsupported'} Phase */
/** @typedef {{kind: 'ws' | 'hls', url: string}} Source */

/** Seconds behind the newest picture the player aims at. */
const TARGET_S = 0.7;
/** From here on it plays a little faster. */
const FAST_S = 1.5;
/** From here on it jumps. */
const JUMP_S = 5;
/** Seconds kept behind the picture, and while paused. */
const KEPT_S = 8;
const PAUSED_KEPT_S = 30;
/** Received and not yet taken by the browser; beyond it the connection is begun anew. */
const QUEUE_BYTES_MAX = 24 * 1024 * 1024;
/** One append takes at most this much. */
const APPEND_BYTES_MAX = 2 * 1024 * 1024;
/** Without a byte for so long the connection counts as lost. */
const SILENCE_MS_MAX = 20_000;
/** Close code of a WebSocket whose viewer is refused. */
const REFUSED_CODE = 1008;
const RETRY_MS = [1_000, 2_000, 4_000, 8_000];
const PROBE_MS_MAX = 5_000;
const REFUSAL_CHARS_MAX = 300;

/** Media Source, or what some phones have in its place. @returns {typeof MediaSource | null} */
function mediaSourceClass() {
  const scope = /** @type {any} */ (globalThis);
  return scope.MediaSource ?? scope.ManagedMediaSource ?? null;
}

/** Whether this browser plays HLS by itself. @param {HTMLVideoElement} video */
export function playsHls(video) {
  return video.canPlayType('application/vnd.apple.mpegurl') !== '';
}

/** The address of a WebSocket as plain HTTP. @param {string} url */
export function httpOf(url) {
  return url.replace(/^ws(s?):/i, 'http$1:');
}

export class Player {
  /**
   * @param {HTMLVideoElement} video
   * @param {() => void} onChange
   */
  constructor(video, onChange) {
    this.video = video;
    this.onChange = onChange;
    /** @type {Phase} */
    this.phase = 'idle';
    this.text = '';
    this.mime = '';
    this.bytes = 0;
    this.attempts = 0;
    this.connections = 0;
    /** @type {Source | null} */
    this.source = null;
    /** @type {WebSocket | null} */
    this.socket = null;
    /** @type {MediaSource | null} */
    this.media = null;
    /** @type {SourceBuffer | null} */
    this.buffer = null;
    /** @type {(ArrayBuffer | {mime: string})[]} */
    this.queue = [];
    this.queueBytes = 0;
    this.heardAt = 0;
    this.startedAt = 0;
    this.hasJoined = false;
    this.isPausedByUser = false;
    /** Ends everything that belongs to the present connection. */
    this.abort = new AbortController();
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    this.timer = undefined;
    this.tick = setInterval(() => this.onTick(), 250);
    this.lifetime = new AbortController();
    const { signal } = this.lifetime;
    video.addEventListener('playing', () => {
      this.attempts = 0;
      this.is('playing', '');
    }, { signal });
    video.addEventListener('waiting', () => this.phase === 'playing' && this.is('stalled', 'buffering'), { signal });
    video.addEventListener('pause', () => { this.isPausedByUser = !video.ended && this.source !== null; }, { signal });
    video.addEventListener('play', () => {
      if (this.isPausedByUser) this.toLiveEdge();
      this.isPausedByUser = false;
    }, { signal });
    video.addEventListener('error', () => this.onVideoError(), { signal });
    video.addEventListener('ended', () => this.source && this.retry('the stream has ended'), { signal });
    document.addEventListener('visibilitychange', () => this.onTick(), { signal });
  }

  /** @param {Source} source */
  play(source) {
    this.stop();
    this.source = source;
    this.isPausedByUser = false;
    this.attempts = 0;
    this.connections = 0;
    this.startedAt = performance.now();
    this.connect();
  }

  stop() {
    this.disconnect();
    this.source = null;
    this.bytes = 0;
    this.is('idle', '');
  }

  /** Stops for good. */
  dispose() {
    this.stop();
    this.lifetime.abort();
    clearInterval(this.tick);
  }

  /** Seconds between the picture and the newest one there is, if known. */
  get behindS() {
    const ranges = this.source?.kind === 'hls' ? this.video.seekable : this.video.buffered;
    if (ranges.length === 0 || !this.source) return null;
    return Math.max(0, ranges.end(ranges.length - 1) - this.video.currentTime);
  }

  toLiveEdge() {
    const ranges = this.source?.kind === 'hls' ? this.video.seekable : this.video.buffered;
    if (ranges.length === 0) return;
    const last = ranges.length - 1;
    const wanted = ranges.end(last) - (this.source?.kind === 'hls' ? 2 : TARGET_S);
    if (wanted > this.video.currentTime) this.video.currentTime = Math.max(ranges.start(last), wanted);
  }

  /** @param {Phase} phase @param {string} text */
  is(phase, text) {
    if (this.phase === phase && this.text === text) return;
    this.phase = phase;
    this.text = text;
    this.onChange();
  }

  connect() {
    const { source } = this;
    if (!source) return;
    this.is('connecting', '');
    this.abort = new AbortController();
    this.connections += 1;
    if (source.kind === 'hls') this.connectHls(source.url);
    else this.connectWebSocket(source.url);
  }

  disconnect() {
    this.abort.abort();
    clearTimeout(this.timer);
    this.socket?.close();
    this.socket = null;
    this.media = null;
    this.buffer = null;
    this.queue = [];
    this.queueBytes = 0;
    this.hasJoined = false;
    this.mime = '';
    if (this.video.src) {
      URL.revokeObjectURL(this.video.src);
      this.video.removeAttribute('src');
      this.video.load();
    }
  }

  /** @param {string} why */
  retry(why) {
    this.disconnect();
    const pause = RETRY_MS[Math.min(this.attempts, RETRY_MS.length - 1)] ?? 8_000;
    this.attempts += 1;
    this.is('retrying', `${why}; next try in ${pause / 1000} s`);
    this.timer = setTimeout(() => this.connect(), pause);
  }

  /** @param {string} url */
  connectHls(url) {
    if (!playsHls(this.video)) {
      this.is('unsupported', 'This browser has no HLS player of its own. Choose WebSocket here, or open the HLS ' +
        'address in another player.');
      return;
    }
    this.video.src = url;
    this.begin();
  }

  /** @param {string} url */
  connectWebSocket(url) {
    const MediaSourceClass = mediaSourceClass();
    if (!MediaSourceClass) {
      this.is('unsupported', 'This browser has no Media Source. Choose HLS here, or another player.');
      return;
    }
    let socket;
    try {
      socket = new WebSocket(url);
    } catch {
      this.is('refused', 'This is no address of a WebSocket (ws://…).');
      return;
    }
    const media = new MediaSourceClass();
    const { signal } = this.abort;
    socket.binaryType = 'arraybuffer';
    this.socket = socket;
    this.media = media;
    this.heardAt = performance.now();
    // Some phones insist: no playing on another device, or no Media Source.
    this.video.disableRemotePlayback = true;
    this.video.src = URL.createObjectURL(media);
    let wasOpen = false;
    media.addEventListener('sourceopen', () => this.pump(), { signal });
    socket.addEventListener('open', () => {
      wasOpen = true;
      this.is('waiting', 'connected; waiting for the stream');
    }, { signal });
    socket.addEventListener('message', (event) => this.onMessage(event.data), { signal });
    socket.addEventListener('close', (event) => {
      if (!wasOpen || event.code === REFUSED_CODE) void this.askWhy(url, signal);
      else this.retry(event.reason || 'the connection was lost');
    }, { signal });
  }

  /**
   * Asks the same address by plain HTTP why it was refused.
   *
   * @param {string} url
   * @param {AbortSignal} signal
   */
  async askWhy(url, signal) {
    const giveUp = AbortSignal.any([signal, AbortSignal.timeout(PROBE_MS_MAX)]);
    try {
      const response = await fetch(httpOf(url), { signal: giveUp, cache: 'no-store', credentials: 'omit' });
      if (response.ok) {
        void response.body?.cancel();
        this.retry('the connection failed');
        return;
      }
      const header = response.headers.get('X-Tengine-Error');
      const text = (header ?? (await response.text())).trim().slice(0, REFUSAL_CHARS_MAX);
      if (signal.aborted) return;
      if (response.status === 404) this.retry(text || 'there is no such stream');
      else {
        this.disconnect();
        this.is('refused', text || `the server answers ${response.status}`);
      }
    } catch {
      if (signal.aborted) return;
      this.retry(`${new URL(url).host} cannot be reached from this browser`);
    }
  }

  begin() {
    if (this.isPausedByUser) return;
    this.video.play().catch((error) => {
      // Without a click a browser may refuse to play with sound; a picture without it is better than none.
      if (error?.name === 'NotAllowedError' && !this.video.muted) {
        this.video.muted = true;
        this.video.play().catch(() => {});
      }
    });
  }

  /** @param {unknown} data */
  onMessage(data) {
    this.heardAt = performance.now();
    if (typeof data === 'string') {
      const mime = readMime(data);
      if (mime !== null) this.queue.push({ mime });
    } else if (data instanceof ArrayBuffer) {
      this.bytes += data.byteLength;
      this.queueBytes += data.byteLength;
      this.queue.push(data);
    }
    if (this.queueBytes > QUEUE_BYTES_MAX) this.retry('this browser cannot keep up');
    else this.pump();
  }

  /** Gives the browser what was received, if it takes something. */
  pump() {
    const { media } = this;
    if (!media || media.readyState !== 'open' || this.buffer?.updating) return;
    const next = this.queue[0];
    if (next === undefined) return;
    if (!(next instanceof ArrayBuffer)) {
      this.queue.shift();
      if (this.useMime(next.mime)) this.pump();
      return;
    }
    if (!this.buffer) {
      this.queue.shift();
      this.queueBytes -= next.byteLength;
      return;
    }
    const parts = [];
    let length = 0;
    for (const item of this.queue) {
      if (!(item instanceof ArrayBuffer) || (length > 0 && length + item.byteLength > APPEND_BYTES_MAX)) break;
      parts.push(item);
      length += item.byteLength;
    }
    try {
      this.buffer.appendBuffer(parts.length === 1 ? next : joined(parts, length));
    } catch (error) {
      if (!(error instanceof DOMException) || error.name !== 'QuotaExceededError') throw error;
      // The browser's memory for it is full: what was seen goes, the rest comes at the next turn.
      this.trim(1);
      return;
    }
    this.queue.splice(0, parts.length);
    this.queueBytes -= length;
  }

  /** @param {string} mime */
  useMime(mime) {
    const { media } = this;
    if (!media) return false;
    if (!mediaSourceClass()?.isTypeSupported(mime)) {
      this.disconnect();
      this.is('unsupported', `This browser cannot decode ${mime}. Choose another player for this stream.`);
      return false;
    }
    if (this.buffer) {
      if (mime !== this.mime) this.buffer.changeType(mime);
    } else {
      this.buffer = media.addSourceBuffer(mime);
      this.buffer.addEventListener('updateend', () => this.onAppended(), { signal: this.abort.signal });
      this.begin();
    }
    this.mime = mime;
    return true;
  }

  onAppended() {
    const { buffered } = this.video;
    if (!this.hasJoined && buffered.length > 0) {
      this.hasJoined = true;
      const last = buffered.length - 1;
      this.video.currentTime = Math.max(buffered.start(last), buffered.end(last) - TARGET_S);
    }
    this.pump();
    if (this.buffer && !this.buffer.updating) this.trim(this.isPausedByUser ? PAUSED_KEPT_S : KEPT_S);
  }

  /**
   * Lets go of what lies further back than this.
   *
   * @param {number} keptS
   */
  trim(keptS) {
    const { buffer, video } = this;
    if (!buffer || buffer.updating || video.buffered.length === 0) return;
    const start = video.buffered.start(0);
    const end = video.buffered.end(video.buffered.length - 1);
    const until = this.isPausedByUser ? end - keptS : video.currentTime - keptS;
    // In pieces of some seconds, since each one costs the browser a walk through its buffer.
    if (until - start > Math.min(4, keptS)) buffer.remove(start, until);
  }

  /** A few times a second: keeps near the live edge, notices silence. */
  onTick() {
    const { video, source } = this;
    if (!source) return;
    if (source.kind === 'ws' && this.socket && performance.now() - this.heardAt > SILENCE_MS_MAX &&
      this.phase !== 'waiting' && this.phase !== 'connecting') {
      this.retry('nothing was heard for a while');
      return;
    }
    if (source.kind === 'ws' && this.hasJoined && !video.seeking && !this.isPausedByUser) this.keepLive();
    this.onChange();
  }

  keepLive() {
    const { video } = this;
    const { buffered } = video;
    if (buffered.length === 0) return;
    const last = buffered.length - 1;
    const behind = buffered.end(last) - video.currentTime;
    if (behind > JUMP_S) {
      video.currentTime = Math.max(buffered.start(last), buffered.end(last) - TARGET_S);
    } else if (video.readyState < HTMLMediaElement.HAVE_FUTURE_DATA) {
      // Stopped at a hole that will not be filled: on to what lies behind it.
      for (let index = 0; index <= last; index += 1) {
        if (buffered.start(index) <= video.currentTime) continue;
        video.currentTime = buffered.start(index) + 0.01;
        break;
      }
    }
    if (behind > FAST_S) video.playbackRate = behind > 2.5 ? 1.25 : 1.08;
    else if (behind <= TARGET_S + 0.1) video.playbackRate = 1;
    if (video.paused && !document.hidden) this.begin();
  }

  onVideoError() {
    const { error } = this.video;
    if (!error || !this.source) return;
    if (this.source.kind === 'hls') {
      const { url } = this.source;
      const { signal } = this.abort;
      this.disconnectVideo();
      void this.askWhy(url, signal);
    } else {
      this.retry(`the browser cannot play on: ${error.message || `error ${error.code}`}`);
    }
  }

  disconnectVideo() {
    this.video.removeAttribute('src');
    this.video.load();
  }
}

/**
 * The type in a text frame: `{"mime": "video/mp4; codecs=…"}`.
 *
 * @param {string} text
 * @returns {string | null}
 */
export function readMime(text) {
  try {
    const { mime } = JSON.parse(text);
    return typeof mime === 'string' ? mime : null;
  } catch {
    return null;
  }
}

/** @param {ArrayBuffer[]} parts @param {number} length */
function joined(parts, length) {
  const all = new Uint8Array(length);
  let at = 0;
  for (const part of parts) {
    all.set(new Uint8Array(part), at);
    at += part.byteLength;
  }
  return all.buffer;
}
