// The console's pure modules, run by Node's test runner from console.rs.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as format from '../../../console/format.js';
import { niceTop } from '../../../console/graph.js';
import * as health from '../../../console/health.js';
import { Counters, parse } from '../../../console/metrics.js';
import { httpOf, readMime } from '../../../console/player.js';
import { hrefOf, titleOf } from '../../../console/store.js';
import { named, openAddresses, signing, usable, webSocketOf } from '../../../console/urls.js';
import { sourceOf } from '../../../console/views/play.js';

const stream = (changes) => ({
  vhost: 'default', app: 'live', name: 'cam', state: 'live', uptime_ms: 60_000, worker: 0, video_codec: 'h264',
  audio_codec: 'aac', width: 1280, height: 720, fps: 30, audio_rate_hz: 48_000, audio_channels: 2,
  video_bitrate_bps: 2_000_000, audio_bitrate_bps: 128_000, gop_ms: 2_000, subscribers: 1, bytes_in: 1, bytes_out: 1,
  lag_ms_max: 40, retained_bytes: 1, retained_ms: 1, publisher: null, ...changes,
});
const history = (changes) => ({ bitrate: [], fps: [], lag: [], repairs: 0, drops: 0, ...changes });
const steady = (value) => Array(60).fill(value);
const texts = (reasons) => reasons.map((reason) => `${reason.severity}: ${reason.text}`);

test('a stream that is well has no reasons', () => {
  const calm = history({ bitrate: steady(2_128_000), fps: steady(30), lag: steady(40) });
  assert.deepEqual(health.ofStream(stream({}), calm), []);
});

test('each thing that is wrong with a stream is said once, with its figure', () => {
  const cases = [
    [{ gop_ms: null }, {}, 'bad: no second keyframe in 1 min 0 s'],
    [{ gop_ms: null, uptime_ms: 5_000 }, {}, undefined],
    [{ gop_ms: 5_000 }, {}, undefined],
    [{ gop_ms: 6_000 }, {}, 'warn: keyframes only every 6.0 s'],
    [{ gop_ms: 10_000 }, {}, 'bad: keyframes only every 10.0 s'],
    [{ fps: 20 }, { fps: steady(30) }, 'warn: 20.0 fps, usually 30.0 fps'],
    [{ fps: 25 }, { fps: steady(30) }, undefined],
    [{ fps: 0 }, { fps: steady(30) }, 'bad: no pictures arrive'],
    [{ video_bitrate_bps: 500_000 }, { bitrate: steady(2_128_000) }, 'warn: bit rate 628 kb/s, usually 2.13 Mb/s'],
    [{ video_bitrate_bps: 500_000 }, { bitrate: [2_128_000] }, undefined],
    [{}, { lag: [0, 3_000, 2_500, 4_000] }, 'warn: a viewer lags 2.5 s'],
    [{}, { lag: [6_000, 6_000, 6_000] }, 'bad: a viewer lags 6.0 s'],
    [{}, { lag: [6_000, 6_000, 10] }, undefined],
    [{}, { repairs: 1 }, 'warn: 1 timestamp repair in the last minute'],
    [{}, { drops: 3 }, 'warn: 3 messages dropped in the last minute'],
    [{ state: 'grace', subscribers: 1 }, {}, 'bad: publisher lost, 1 viewer waits for its return'],
    [{ state: 'waiting', subscribers: 2 }, {}, 'note: nobody publishes, 2 viewers wait'],
    [{ video_codec: null, audio_codec: null }, {}, 'warn: no media yet'],
    [{ video_codec: null, fps: null, gop_ms: null }, {}, undefined],
  ];
  for (const [changes, past, expected] of cases) {
    assert.deepEqual(texts(health.ofStream(stream(changes), history(past))), expected ? [expected] : [],
      JSON.stringify(changes));
  }
});

const nothing = {
  status: null, server: null, certificates: [], domains: [], missingWorkers: [], lastMinute: () => 0, nowMs: 0,
};

test('what is wrong with the server comes worst first', () => {
  const status = {
    status: 'draining', workers: [
      { worker: 0, healthy: true, busy_ratio: 0.5, connections: 1 },
      { worker: 1, healthy: true, busy_ratio: 0.85, connections: 1 },
      { worker: 2, healthy: false, busy_ratio: 0, connections: 1 },
    ],
  };
  const limit = (used) => ({ name: 'connections', used, max: 100, unit: 'count', setting: null });
  const memory = { used_bytes: 1, budget_bytes: 9, level: 0, shed: [] };
  const server = { memory, limits: [limit(79), limit(80), limit(96)], findings: [{ what: 'small backlog', fix: 'sysctl' }] };
  const grown = { ringcast_messages_dropped_total: 4, ringcast_access_denied_total: 2 };
  const reasons = health.ofServer({ ...nothing, status, server, lastMinute: (name) => grown[name] ?? 0 });
  assert.deepEqual(texts(reasons), [
    'bad: worker 2 does not turn', 'bad: connections: 96 % of the limit (96 of 100)',
    'warn: the server is draining: it takes nothing new', 'warn: worker 1 is 85 % busy',
    'warn: connections: 80 % of the limit (80 of 100)', 'warn: messages dropped: 4 in the last minute',
    'note: requests denied: 2 in the last minute', 'note: host: small backlog',
  ]);
  assert.equal(reasons.at(-1).fix, 'sysctl');
  assert.deepEqual(health.ofServer(nothing), []);
});

test('what is shed for want of memory is said in the order it came, and is bad once more than newcomers lose', () => {
  const at = (...shed) => texts(health.ofMemory({ used_bytes: 1, budget_bytes: 1, level: shed.length, shed }));
  assert.deepEqual(at(), []);
  assert.deepEqual(health.ofMemory(null), []);
  assert.deepEqual(at('subscribers'), ['warn: memory runs short, level 1 of 5: new viewers are refused']);
  assert.deepEqual(at('subscribers', 'publishers', 'retention'), ['bad: memory runs short, level 3 of 5: new viewers ' +
    'are refused, new streams are refused, rings keep their present GOP only']);
});

test('a certificate is told of two weeks before its end, and when it cannot be used', () => {
  const day = 86_400;
  const at = (state, days) => texts(health.ofCertificate({ name: 'a', state, not_after_unix_s: days * day }, 0));
  assert.deepEqual(at('valid', 14), []);
  assert.deepEqual(at('valid', 9), ['warn: certificate a ends in 9 d 0 h']);
  assert.deepEqual(at('valid', 2), ['bad: certificate a ends in 2 d 0 h']);
  assert.deepEqual(at('expired', -1), ['bad: certificate a has expired']);
  assert.deepEqual(at('stale', 90), ['warn: certificate a has new files that cannot be used']);
});

test('counters are read with their labels, and grow within a minute', () => {
  const text = (value) => `# TYPE a counter\na_total{x="1",y="say \\"no\\""} ${value}\nb 0.5\n` +
    `ringcast_uptime_seconds ${value}\n# EOF\n`;
  assert.deepEqual(parse(text(3))[0], { name: 'a_total', labels: { x: '1', y: 'say "no"' }, value: 3 });
  const counters = new Counters();
  counters.take(text(3), 0);
  assert.equal(counters.growthOf('a_total'), 0);
  counters.take(text(5), 50_000);
  assert.equal(counters.growthOf('a_total'), 2);
  assert.equal(counters.growthOf('a_total', ['1']), 0);
  counters.take(text(9), 110_000);
  assert.equal(counters.growthOf('a_total'), 4);
  counters.take(text(1), 111_000);
  assert.equal(counters.growthOf('a_total'), 0, 'a server that was started again begins anew');
});

test('figures read as people write them', () => {
  assert.equal(format.bitrate(2_512_345), '2.51 Mb/s');
  assert.equal(format.bitrate(999), '999 b/s');
  assert.equal(format.bytes(1_536), '1.50 KiB');
  assert.equal(format.span(59_999), '59 s');
  assert.equal(format.span(3_600_000), '1 h 0 min');
  assert.equal(format.delay(999), '999 ms');
  assert.equal(format.moment(0), '1970-01-01 00:00 UTC');
  assert.equal(niceTop(905_000), 1_000_000);
  assert.equal(niceTop(0), 1);
});

test('addresses are those of where the server listens', () => {
  const listen = { rtmp: '0.0.0.0:1935', rtmps: '[::]:443', http: '0.0.0.0:8080', admin: null };
  const set = openAddresses(listen, 'host', 'live/cam', 'play');
  assert.deepEqual(named(set).map(({ url }) => url), [
    'rtmp://host/live/cam', 'rtmps://host/live/cam', 'http://host:8080/live/cam.flv',
    'http://host:8080/live/cam.m3u8', 'ws://host:8080/live/cam.mp4',
  ]);
  assert.equal(webSocketOf({ mp4: 'https://a/b.mp4?c' }), 'wss://a/b.mp4?c');
  assert.deepEqual(Object.keys(openAddresses(listen, 'host', 'live/cam', 'publish')), ['rtmp', 'rtmps']);
  assert.equal(usable('ws://h:8080/a.mp4?b', listen, 'http:'), 'ws://h:8080/a.mp4?b');
  assert.equal(usable('ws://h:8080/a.mp4?b', listen, 'https:'), 'wss://h/a.mp4?b');
  assert.equal(usable('http://[::1]/a.m3u8', { ...listen, rtmps: 'x:8443' }, 'https:'), 'https://[::1]:8443/a.m3u8');
  const push = { name: 'push', play_domains: ['play'], spec: { type: 'push' } };
  assert.deepEqual(signing({ vhost: 'push' }, [push]), { kind: 'signed', play: ['play'], push: 'push' });
  assert.deepEqual(signing({ vhost: 'other' }, [push]), { kind: 'open', host: 'other' });
});

test('a stream has one page, whatever its name', () => {
  assert.equal(hrefOf({ vhost: 'default', app: 'live/eu', name: 'a b?c' }), '#/play/live/eu/a%20b%3Fc');
  assert.equal(hrefOf({ vhost: 'x.y', app: 'live', name: 'cam' }), '#/play/live/cam?vhost=x.y');
  assert.equal(titleOf({ vhost: 'x.y', app: 'live', name: 'cam' }), 'x.y/live/cam');
});

test('the player knows what an address is, and what a text frame says', () => {
  assert.deepEqual(sourceOf('http://h:8080/live/cam.m3u8?a=b'), { kind: 'hls', url: 'http://h:8080/live/cam.m3u8?a=b' });
  assert.deepEqual(sourceOf('https://h/live/cam.mp4'), { kind: 'ws', url: 'wss://h/live/cam.mp4' });
  assert.equal(sourceOf('rtmp://h/live/cam'), null);
  assert.equal(sourceOf('javascript:alert(1)//.mp4'), null);
  assert.equal(httpOf('wss://h/a.mp4'), 'https://h/a.mp4');
  assert.equal(readMime('{"mime":"video/mp4"}'), 'video/mp4');
  assert.equal(readMime('{"mime":1}'), null);
  assert.equal(readMime('nonsense'), null);
});
