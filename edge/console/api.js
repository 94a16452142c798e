/**
 * The admin API as functions: adds the token, turns errors into {@link ApiError}, bounds the time.
 *
 * The token is kept in the session storage of this tab and nowhere else.
 */

/**
 * @typedef {object} Publisher
 * @property {string} id
 * @property {string} peer
 * @property {string} flash_ver
 *
 * @typedef {object} Stream
 * @property {string} vhost
 * @property {string} app
 * @property {string} name
 * @property {'live' | 'grace' | 'waiting'} state
 * @property {number} uptime_ms
 * @property {number} worker
 * @property {string | null} video_codec
 * @property {string | null} audio_codec
 * @property {number | null} width
 * @property {number | null} height
 * @property {number | null} fps
 * @property {number | null} audio_rate_hz
 * @property {number | null} audio_channels
 * @property {number} video_bitrate_bps
 * @property {number} audio_bitrate_bps
 * @property {number | null} gop_ms
 * @property {number} subscribers
 * @property {number} bytes_in
 * @property {number} bytes_out
 * @property {number} lag_ms_max
 * @property {number} retained_bytes
 * @property {number} retained_ms
 * @property {Publisher | null} publisher
 * @property {number} [timestamp_repairs]
 * @property {number} [messages_dropped]
 *
 * @typedef {object} Client
 * @property {string} id
 * @property {'undecided' | 'publisher' | 'subscriber'} role
 * @property {string} protocol
 * @property {string} peer
 * @property {string | null} vhost
 * @property {string | null} app
 * @property {string | null} stream
 * @property {string | null} flash_ver
 * @property {number} bytes_in
 * @property {number} bytes_out
 * @property {number | null} lag_ms
 * @property {number} skips
 * @property {number} uptime_ms
 *
 * @typedef {object} Worker
 * @property {number} worker
 * @property {boolean} healthy
 * @property {number} connections
 * @property {number} busy_ratio
 *
 * @typedef {object} Status
 * @property {string} version
 * @property {'starting' | 'ready' | 'draining' | 'stopping'} status
 * @property {number} uptime_ms
 * @property {number} connections
 * @property {number} publishers
 * @property {number} subscribers
 * @property {number} streams
 * @property {number} ingress_bytes
 * @property {number} egress_bytes
 * @property {Worker[]} workers
 *
 * @typedef {object} Limit
 * @property {string} name
 * @property {number} used
 * @property {number} max
 * @property {'count' | 'bytes'} unit
 * @property {string | null} setting
 *
 * @typedef {object} Finding
 * @property {string} what
 * @property {string} fix
 *
 * @typedef {object} Listen
 * @property {string | null} rtmp
 * @property {string | null} rtmps
 * @property {string | null} http
 * @property {string | null} admin
 *
 * @typedef {'subscribers' | 'publishers' | 'retention' | 'hls' | 'laggards'} MemoryStep
 *
 * @typedef {object} Memory
 * @property {number} used_bytes
 * @property {number} budget_bytes
 * @property {number} level
 * @property {MemoryStep[]} shed
 *
 * @typedef {object} ServerFacts
 * @property {Listen} listen
 * @property {'uring' | 'epoll'} io
 * @property {boolean} kernel_tls
 * @property {boolean} has_domains
 * @property {boolean} forbids_persist
 * @property {number} resident_bytes
 * @property {Memory | null} memory
 * @property {Limit[]} limits
 * @property {Finding[]} findings
 *
 * @typedef {object} Certificate
 * @property {string} name
 * @property {'valid' | 'stale' | 'expired' | 'not_yet_valid' | 'broken'} state
 * @property {boolean} is_default
 * @property {string[]} names
 * @property {string | null} issuer
 * @property {string | null} not_before
 * @property {string | null} not_after
 * @property {number | null} not_after_unix_s
 * @property {string | null} key_type
 * @property {number} chain
 * @property {string} cert_file
 * @property {string | null} error
 * @property {string[]} warnings
 *
 * @typedef {object} DomainSpec
 * @property {'push' | 'play'} type
 * @property {string} [push_domain]
 * @property {number} [publishers_max]
 * @property {number} [subscribers_max]
 * @property {{scheme: string}[]} [provider]
 *
 * @typedef {object} Domain
 * @property {string} name
 * @property {'file' | 'api'} source
 * @property {boolean} persisted
 * @property {string | null} fault
 * @property {string[]} play_domains
 * @property {number} publishers
 * @property {number} subscribers
 * @property {DomainSpec} spec
 *
 * @typedef {object} Forbid
 * @property {string} target
 * @property {'publish' | 'play' | 'all'} scope
 * @property {number} since_s
 * @property {number | null} until_s
 * @property {string | null} until
 * @property {string} reason
 * @property {boolean} persisted
 *
 * @typedef {object} AddressSet
 * @property {string} [rtmp]
 * @property {string} [rtmps]
 * @property {string} [flv]
 * @property {string} [hls]
 * @property {string} [mp4]
 * @property {number} [expires_unix_s]
 * @property {string} [expires]
 *
 * @typedef {object} Addresses
 * @property {string} domain
 * @property {'publish' | 'play'} role
 * @property {string} scheme
 * @property {AddressSet} addresses
 */

/**
 * @template T
 * @typedef {object} Page
 * @property {number} total
 * @property {number} offset
 * @property {number} limit
 * @property {number[]} [missing_workers]
 * @property {T[]} items
 */

const TOKEN_KEY = 'ringcast-admin-token';
const PATIENCE_MS = 10_000;

/** An answer that is an error, or no answer (status 0). */
export class ApiError extends Error {
  /**
   * @param {number} status
   * @param {string} code
   * @param {string} message
   */
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

/** Asked when the server wants a token; resolves when there is one to try. @type {() => Promise<void>} */
let askForToken = async () => {};
/** One question at a time, however many requests are refused. @type {Promise<void> | null} */
let asking = null;

/** @param {() => Promise<void>} ask */
export function onTokenWanted(ask) {
  askForToken = ask;
}

/** @param {string} token */
export function setToken(token) {
  sessionStorage.setItem(TOKEN_KEY, token);
}

export function hasToken() {
  return sessionStorage.getItem(TOKEN_KEY) !== null;
}

export function forgetToken() {
  sessionStorage.removeItem(TOKEN_KEY);
}

/**
 * @param {string} method
 * @param {string} path relative to the page
 * @param {unknown} [body]
 * @returns {Promise<Response>}
 */
async function ask(method, path, body) {
  for (;;) {
    const token = sessionStorage.getItem(TOKEN_KEY);
    /** @type {Record<string, string>} */
    const headers = {};
    if (token !== null) headers.Authorization = `Bearer ${token}`;
    if (body !== undefined) headers['Content-Type'] = 'application/json';
    let response;
    try {
      response = await fetch(new URL(path, document.baseURI), {
        method,
        headers,
        body: body === undefined ? null : JSON.stringify(body),
        cache: 'no-store',
        credentials: 'omit',
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
    } catch (error) {
      const timeout = error instanceof DOMException && error.name === 'TimeoutError';
      throw new ApiError(0, 'no_answer', timeout ? 'the server does not answer' : 'the server cannot be reached');
    }
    if (response.status !== 401) return response;
    // Another request may have brought a newer token meanwhile; then that is tried first.
    if (sessionStorage.getItem(TOKEN_KEY) === token) {
      forgetToken();
      asking ??= askForToken().finally(() => { asking = null; });
      await asking;
    }
  }
}

/**
 * @param {string} method
 * @param {string} path
 * @param {unknown} [body]
 * @returns {Promise<any>}
 */
async function json(method, path, body) {
  const response = await ask(method, path, body);
  const text = await response.text();
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new ApiError(response.status, 'no_json', `the server answers ${response.status}`);
  }
  if (!response.ok) {
    const { code = 'error', message = `the server answers ${response.status}` } = value.error ?? {};
    throw new ApiError(response.status, code, message);
  }
  return value;
}

/** @param {Record<string, string | number | null | undefined>} fields */
function query(fields) {
  const parameters = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value !== null && value !== undefined && value !== '') parameters.set(name, String(value));
  }
  const text = parameters.toString();
  return text ? `?${text}` : '';
}

/** @returns {Promise<Status>} */
export const status = () => json('GET', 'api/v1/status');

/** @returns {Promise<ServerFacts>} */
export const server = () => json('GET', 'api/v1/server');

/** @param {{offset?: number, limit?: number}} wanted @returns {Promise<Page<Stream>>} */
export const streams = (wanted) => json('GET', `api/v1/streams${query(wanted)}`);

/**
 * @param {{role?: string, vhost?: string, app?: string, stream?: string, offset?: number, limit?: number}} wanted
 * @returns {Promise<Page<Client>>}
 */
export const clients = (wanted) => json('GET', `api/v1/clients${query(wanted)}`);

/** @param {string} id */
export const kick = (id) => json('DELETE', `api/v1/clients/${encodeURIComponent(id)}`);

/** @returns {Promise<Page<Certificate>>} */
export const certificates = () => json('GET', 'api/v1/certs');

/** @returns {Promise<Page<Domain>>} */
export const domains = () => json('GET', 'api/v1/domains');

/** @returns {Promise<{total: number, items: Forbid[]}>} */
export const forbids = () => json('GET', 'api/v1/forbids');

/**
 * @param {{domain?: string, app?: string, stream?: string, address?: string, scope: string, for_s?: number,
 *   reason: string}} wanted
 * @returns {Promise<{target: string, cut: number, missing_workers: number[]}>}
 */
export const forbid = (wanted) => json('POST', 'api/v1/forbids', wanted);

/** @param {string} target */
export const resume = (target) =>
  json('DELETE', `api/v1/forbids/${target.split('/').map(encodeURIComponent).join('/')}`);

/**
 * @param {{domain: string, role: string, app: string, stream: string, valid_s?: number | null, user?: string}} wanted
 * @returns {Promise<Addresses>}
 */
export const addresses = (wanted) => json('GET', `api/v1/addresses${query(wanted)}`);

/** The OpenMetrics text. */
export async function metrics() {
  const response = await ask('GET', 'metrics');
  if (!response.ok) throw new ApiError(response.status, 'error', `the server answers ${response.status}`);
  return response.text();
}

/**
 * A QR code of a text, as an SVG document.
 *
 * @param {string} text
 */
export async function qr(text) {
  const response = await ask('POST', 'api/v1/qr', { text });
  if (!response.ok) throw new ApiError(response.status, 'error', 'this text does not fit into a QR code');
  return response.text();
}
