/**
 * What is wrong at a glance: turns figures into reasons, worst first. Pure, so that its rules can be tested.
 *
 * A reason says what an operator sees or will hear about, with the figure it rests on.
 */

import { bitrate, delay, frames, number, percent, plural, span } from './format.js';

/** @typedef {'bad' | 'warn' | 'note'} Severity */
/**
 * @typedef {object} Reason
 * @property {Severity} severity
 * @property {string} text
 * @property {string} [fix]
 * @property {string} [href] where to look
 */

/** A new viewer waits up to this long for a picture, and HLS cannot cut shorter segments. */
export const GOP_WARN_MS = 5_000;
export const GOP_BAD_MS = 10_000;
/** A stream has had time to show two keyframes. */
export const KEYFRAME_PATIENCE_MS = 10_000;
/** Part of its usual rate under which a stream has dropped. */
const FPS_DROP = 0.75;
const BITRATE_DROP = 0.4;
/** Samples before a usual rate is known. */
const USUAL_SAMPLES = 20;
const LAG_WARN_MS = 2_000;
const LAG_BAD_MS = 5_000;
/** A worker this busy widens its flush window; above the second figure viewers notice. */
const BUSY_WARN = 0.8;
const BUSY_BAD = 0.95;
const LIMIT_WARN = 0.8;
const LIMIT_BAD = 0.95;
const CERTIFICATE_WARN_DAYS = 14;
const CERTIFICATE_BAD_DAYS = 3;

/** What each step of shedding memory means, in the order in which they come. @type
 * {Record<import('./api.js').MemoryStep, string>} */
export const MEMORY_STEPS = {
  subscribers: 'new viewers are refused',
  publishers: 'new streams are refused',
  retention: 'rings keep their present GOP only',
  hls: 'HLS windows are cut',
  laggards: 'the viewers furthest behind are closed',
};
/** From this step on, more is lost than newcomers. */
const MEMORY_BAD_LEVEL = 3;

const ORDER = { bad: 0, warn: 1, note: 2 };

/** @param {Reason[]} reasons */
export function worstFirst(reasons) {
  return [...reasons].sort((a, b) => ORDER[a.severity] - ORDER[b.severity]);
}

/**
 * The middle of the values, `null` while there are too few.
 *
 * @param {number[]} values
 */
export function usual(values) {
  if (values.length < USUAL_SAMPLES) return null;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? null;
}

/**
 * What is wrong with one stream.
 *
 * @param {import('./api.js').Stream} stream
 * @param {{bitrate: number[], fps: number[], lag: number[], repairs: number, drops: number}} history newest last;
 *   repairs and drops of the last minute
 * @returns {Reason[]}
 */
export function ofStream(stream, history) {
  /** @type {Reason[]} */
  const reasons = [];
  /** @param {Severity} severity @param {string} text */
  const say = (severity, text) => reasons.push({ severity, text });
  const viewers = `${plural(stream.subscribers, 'viewer')} ${stream.subscribers === 1 ? 'waits' : 'wait'}`;
  if (stream.state === 'grace') {
    say('bad', `publisher lost, ${viewers} for its return`);
    return reasons;
  }
  if (stream.state === 'waiting') {
    say('note', `nobody publishes, ${viewers}`);
    return reasons;
  }
  if (stream.video_codec !== null) ofVideo(stream, history, say);
  else if (stream.audio_codec === null && stream.uptime_ms > 3_000) say('warn', 'no media yet');

  const rate = stream.video_bitrate_bps + stream.audio_bitrate_bps;
  const usualRate = usual(history.bitrate.slice(0, -2));
  if (usualRate !== null && usualRate > 0 && rate < usualRate * BITRATE_DROP) {
    say('warn', `bit rate ${bitrate(rate)}, usually ${bitrate(usualRate)}`);
  }
  const lags = history.lag.slice(-3);
  const lag = lags.length > 0 ? Math.min(...lags) : stream.lag_ms_max;
  if (lag >= LAG_BAD_MS) say('bad', `a viewer lags ${delay(lag)}`);
  else if (lag >= LAG_WARN_MS) say('warn', `a viewer lags ${delay(lag)}`);
  if (history.repairs > 0) say('warn', `${plural(history.repairs, 'timestamp repair')} in the last minute`);
  if (history.drops > 0) say('warn', `${plural(history.drops, 'message')} dropped in the last minute`);
  return worstFirst(reasons);
}

/**
 * @param {import('./api.js').Stream} stream
 * @param {{fps: number[]}} history
 * @param {(severity: Severity, text: string) => void} say
 */
function ofVideo(stream, history, say) {
  if (stream.gop_ms === null) {
    if (stream.uptime_ms > KEYFRAME_PATIENCE_MS) say('bad', `no second keyframe in ${span(stream.uptime_ms)}`);
  } else if (stream.gop_ms >= GOP_BAD_MS) {
    say('bad', `keyframes only every ${delay(stream.gop_ms)}`);
  } else if (stream.gop_ms > GOP_WARN_MS) {
    say('warn', `keyframes only every ${delay(stream.gop_ms)}`);
  }
  const fps = stream.fps ?? 0;
  const usualFps = usual(history.fps.slice(0, -2));
  if (fps === 0 && stream.uptime_ms > 3_000) say('bad', 'no pictures arrive');
  else if (usualFps !== null && fps < usualFps * FPS_DROP) {
    say('warn', `${frames(fps)}, usually ${frames(usualFps)}`);
  }
}

/**
 * What is wrong with the server as a whole.
 *
 * @param {object} known
 * @param {import('./api.js').Status | null} known.status
 * @param {import('./api.js').ServerFacts | null} known.server
 * @param {import('./api.js').Certificate[]} known.certificates
 * @param {import('./api.js').Domain[]} known.domains
 * @param {number[]} known.missingWorkers
 * @param {(name: string, except?: string[]) => number} known.lastMinute growth of a counter
 * @param {number} known.nowMs
 * @returns {Reason[]}
 */
export function ofServer(known) {
  const { status, server, lastMinute } = known;
  /** @type {Reason[]} */
  const reasons = [];
  if (status && (status.status === 'draining' || status.status === 'stopping')) {
    reasons.push({ severity: 'warn', text: `the server is ${status.status}: it takes nothing new` });
  }
  for (const worker of status?.workers ?? []) reasons.push(...ofWorker(worker));
  if (known.missingWorkers.length > 0) {
    const text = `worker ${known.missingWorkers.join(', ')} did not answer: lists are incomplete`;
    reasons.push({ severity: 'warn', text });
  }
  if (server) reasons.push(...ofMemory(server.memory));
  for (const limit of server?.limits ?? []) {
    const ratio = limit.max > 0 ? limit.used / limit.max : 0;
    if (ratio < LIMIT_WARN) continue;
    const text = `${limit.name}: ${percent(ratio)} of the limit (${number(limit.used)} of ${number(limit.max)})`;
    reasons.push({ severity: ratio >= LIMIT_BAD ? 'bad' : 'warn', text, href: '#/limits' });
  }
  for (const certificate of known.certificates) reasons.push(...ofCertificate(certificate, known.nowMs));
  for (const domain of known.domains) {
    if (domain.fault) reasons.push({ severity: 'bad', text: `domain ${domain.name}: ${domain.fault}` });
    reasons.push(...ofQuota(domain, 'publishers'), ...ofQuota(domain, 'subscribers'));
  }
  reasons.push(...ofCounters(lastMinute));
  for (const { what, fix } of server?.findings ?? []) {
    reasons.push({ severity: 'note', text: `host: ${what}`, fix, href: '#/limits' });
  }
  return worstFirst(reasons);
}

/**
 * @param {import('./api.js').Memory | null} memory
 * @returns {Reason[]}
 */
export function ofMemory(memory) {
  if (memory === null || memory.level === 0) return [];
  const what = memory.shed.map((step) => MEMORY_STEPS[step]).join(', ');
  const steps = Object.keys(MEMORY_STEPS).length;
  const severity = memory.level >= MEMORY_BAD_LEVEL ? 'bad' : 'warn';
  return [{ severity, text: `memory runs short, level ${memory.level} of ${steps}: ${what}`, href: '#/limits' }];
}

/**
 * @param {import('./api.js').Worker} worker
 * @returns {Reason[]}
 */
function ofWorker(worker) {
  const name = `worker ${worker.worker}`;
  if (!worker.healthy) return [{ severity: 'bad', text: `${name} does not turn` }];
  if (worker.busy_ratio >= BUSY_BAD) return [{ severity: 'bad', text: `${name} is ${percent(worker.busy_ratio)} busy` }];
  if (worker.busy_ratio >= BUSY_WARN) {
    return [{ severity: 'warn', text: `${name} is ${percent(worker.busy_ratio)} busy` }];
  }
  return [];
}

/**
 * @param {import('./api.js').Certificate} certificate
 * @param {number} nowMs
 * @returns {Reason[]}
 */
export function ofCertificate(certificate, nowMs) {
  const name = `certificate ${certificate.name}`;
  const href = '#/certificates';
  const states = {
    expired: 'has expired', broken: 'cannot be used', not_yet_valid: 'is not valid yet',
    stale: 'has new files that cannot be used', valid: '',
  };
  if (certificate.state !== 'valid') {
    const severity = certificate.state === 'stale' ? 'warn' : 'bad';
    return [{ severity, text: `${name} ${states[certificate.state]}`, href }];
  }
  if (certificate.not_after_unix_s === null) return [];
  const left = certificate.not_after_unix_s * 1000 - nowMs;
  const days = left / 86_400_000;
  if (days >= CERTIFICATE_WARN_DAYS) return [];
  return [{ severity: days < CERTIFICATE_BAD_DAYS ? 'bad' : 'warn', text: `${name} ends in ${span(left)}`, href }];
}

/**
 * @param {import('./api.js').Domain} domain
 * @param {'publishers' | 'subscribers'} kind
 * @returns {Reason[]}
 */
function ofQuota(domain, kind) {
  const max = domain.spec[`${kind}_max`] ?? 0;
  if (max === 0 || domain[kind] < max * LIMIT_WARN) return [];
  const text = `domain ${domain.name}: ${number(domain[kind])} of ${number(max)} ${kind}`;
  return [{ severity: domain[kind] >= max ? 'bad' : 'warn', text, href: '#/limits' }];
}

/** Counters that should stand still: name, what grew, severity, label values that are no fault. @type
 * {[string, string, Severity, string[]?][]} */
const QUIET = [
  ['ringcast_messages_dropped_total', 'messages dropped', 'warn'],
  ['ringcast_timestamp_repairs_total', 'timestamp repairs', 'warn'],
  ['ringcast_subscriber_skips_total', 'skips of viewers that fell behind', 'warn'],
  ['ringcast_hls_refused_total', 'HLS requests refused at a bound', 'warn'],
  ['ringcast_hls_overruns_total', 'HLS fell out of a ring', 'warn'],
  ['ringcast_hls_segments_forgotten_total', 'HLS segments given up early', 'warn'],
  ['ringcast_accept_errors_total', 'accepts failed', 'bad'],
  ['ringcast_worker_failures_total', 'workers that failed', 'bad'],
  ['ringcast_log_dropped_lines_total', 'log lines lost', 'warn'],
  ['ringcast_events_dropped_total', 'events of workers lost', 'warn'],
  ['ringcast_uring_overflows_total', 'completion queue overflows', 'warn'],
  ['ringcast_hook_questions_total', 'hooks that gave no answer', 'warn', ['allowed', 'refused', 'cached']],
  ['ringcast_hook_questions_refused_total', 'hook questions that found the queue full', 'warn'],
  ['ringcast_access_denied_total', 'requests denied', 'note'],
  ['ringcast_protocol_errors_total', 'peers broke the protocol', 'note'],
  ['ringcast_tls_errors_total', 'TLS errors', 'note'],
];

/**
 * @param {(name: string, except?: string[]) => number} lastMinute
 * @returns {Reason[]}
 */
function ofCounters(lastMinute) {
  /** @type {Reason[]} */
  const reasons = [];
  for (const [name, what, severity, except] of QUIET) {
    const count = lastMinute(name, except ?? []);
    if (count > 0) {
      reasons.push({ severity, text: `${what}: ${number(count)} in the last minute`, href: '#/limits' });
    }
  }
  return reasons;
}
