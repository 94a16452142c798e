/**
 * Addresses of a stream: unsigned ones from where the server listens, signed ones by the server's keys. Pure but
 * for the question to the server.
 */

import * as api from './api.js';

/** @typedef {{name: string, url: string}} NamedUrl */

/** Tickets need a user; the console is one. */
const TICKET_USER = 'console';

/** @param {string | null | undefined} listen "0.0.0.0:1935" */
function portOf(listen) {
  const port = listen?.slice(listen.lastIndexOf(':') + 1);
  return port ? Number(port) : null;
}

/**
 * @param {string} scheme
 * @param {string} host
 * @param {number | null} port
 * @param {number} usual
 */
function origin(scheme, host, port, usual) {
  return `${scheme}://${host}${port === usual ? '' : `:${port}`}`;
}

/** The host this page was loaded from, with brackets if it is an IPv6 address. */
export function pageHost() {
  return location.hostname || 'localhost';
}

/** @param {{app: string, name: string}} stream */
export function pathOf(stream) {
  return [...stream.app.split('/'), stream.name].map(encodeURIComponent).join('/');
}

/**
 * Unsigned addresses of a stream.
 *
 * @param {api.Listen} listen
 * @param {string} host
 * @param {string} path
 * @param {'publish' | 'play'} role
 * @returns {api.AddressSet}
 */
export function openAddresses(listen, host, path, role) {
  const rtmp = portOf(listen.rtmp);
  const rtmps = portOf(listen.rtmps);
  const http = portOf(listen.http);
  /** @type {api.AddressSet} */
  const set = {};
  if (rtmp !== null) set.rtmp = `${origin('rtmp', host, rtmp, 1935)}/${path}`;
  if (rtmps !== null) set.rtmps = `${origin('rtmps', host, rtmps, 443)}/${path}`;
  if (http !== null && role === 'play') {
    set.flv = `${origin('http', host, http, 80)}/${path}.flv`;
    set.hls = `${origin('http', host, http, 80)}/${path}.m3u8`;
    set.mp4 = `${origin('http', host, http, 80)}/${path}.mp4`;
  }
  return set;
}

/** The fragmented MP4 of an address set as WebSocket. @param {api.AddressSet} set */
export function webSocketOf(set) {
  return set.mp4?.replace(/^http/, 'ws');
}

/**
 * An address as this page may use it: a page that came by TLS may ask for nothing without it. The port of RTMPS
 * serves HTTPS too.
 *
 * @param {string} url
 * @param {api.Listen} listen
 * @param {string} protocol of the page
 */
export function usable(url, listen, protocol) {
  const port = portOf(listen.rtmps);
  const parts = /^(http|ws):\/\/(\[[^\]]*\]|[^/:?#]*)(?::\d+)?(.*)$/.exec(url);
  if (protocol !== 'https:' || port === null || !parts) return url;
  const [, scheme = '', host = '', rest = ''] = parts;
  return `${origin(`${scheme}s`, host, port, 443)}${rest}`;
}

/**
 * The addresses with their names, in the order they are shown.
 *
 * @param {api.AddressSet} set
 * @returns {NamedUrl[]}
 */
export function named(set) {
  /** @type {[string, string | undefined][]} */
  const all = [
    ['RTMP', set.rtmp], ['RTMPS', set.rtmps], ['FLV', set.flv], ['HLS', set.hls], ['WebSocket', webSocketOf(set)],
  ];
  return all.flatMap(([name, url]) => (url === undefined ? [] : [{ name, url }]));
}

/**
 * What the addresses of a stream are made of.
 *
 * @param {{vhost: string}} stream
 * @param {api.Domain[]} domains
 * @returns {{kind: 'open', host: string} | {kind: 'signed', play: string[], push: string | null}}
 */
export function signing(stream, domains) {
  const push = domains.find((domain) => domain.name === stream.vhost && domain.spec.type === 'push');
  if (push) return { kind: 'signed', play: push.play_domains, push: push.name };
  return { kind: 'open', host: stream.vhost === 'default' ? pageHost() : stream.vhost };
}

/**
 * Addresses to play a stream from this page: of its first play domain, or unsigned.
 *
 * @param {{vhost: string, app: string, name: string}} stream
 * @param {api.Domain[]} domains
 * @param {api.ServerFacts} server
 * @param {string | null} domain the play domain wanted
 * @returns {Promise<{set: api.AddressSet, note: string}>}
 */
export async function playAddresses(stream, domains, server, domain) {
  const how = signing(stream, domains);
  if (how.kind === 'open') {
    return { set: openAddresses(server.listen, how.host, pathOf(stream), 'play'), note: '' };
  }
  const wanted = domain ?? how.play[0];
  if (wanted === undefined) return { set: {}, note: `${how.push} has no play domain, so nobody can play its streams.` };
  const { addresses, scheme } = await api.addresses({
    domain: wanted, role: 'play', app: stream.app, stream: stream.name,
    ...(usesTickets(domains, wanted) ? { user: TICKET_USER } : {}),
  });
  const until = addresses.expires ? `, valid until ${addresses.expires.replace('T', ' ').replace('Z', ' UTC')}` : '';
  return { set: addresses, note: scheme === 'open' ? '' : `Signed by ${scheme}${until}.` };
}

/** Whether addresses of a domain are for one user. @param {api.Domain[]} domains @param {string} name */
export function usesTickets(domains, name) {
  const providers = domains.find((domain) => domain.name === name)?.spec.provider ?? [];
  return providers.some((provider) => provider.scheme === 'usersig');
}
