// Drives the players of pages in headless Chromium. Started by http_browser.rs:
//
//   node drive.mjs TOOLS CHROMIUM SCENARIO JSON
//
// JSON: { players: [{ name, player, url, seconds, height, sound }], playlists }. All play at once, each in a page
// of its own; every playlist they read is kept in the folder `playlists`. Each must play for so many seconds, where
// `height` is given after a picture of that height has come, and one that `gives_up` must say so instead; before
// that the driver says when players of FLV have taken all that came. Prints a line per player, `done` at the end.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { launch } from '../browser.mjs';

const [tools, executablePath, , json] = process.argv.slice(2);
const wanted = JSON.parse(json);
const PATIENCE_MS = 60_000;
// Longer than between two appends of a player that takes FLV.
const QUIET_MS = 1_000;
const here = (name) => new URL(name, import.meta.url);
const files = {
  '/': here('player.html'),
  '/player.js': here('player.js'),
  '/hls.js': `${tools}/node_modules/hls.js/dist/hls.js`,
  '/mpegts.js': `${tools}/node_modules/mpegts.js/dist/mpegts.js`,
};

// Pages are of another origin than what they ask for, and of the same machine: a browser lets none other near it.
const pageServer = createServer(({ url }, response) => {
  const { pathname } = new URL(url, 'http://localhost');
  if (!files[pathname]) {
    response.writeHead(404).end();
    return;
  }
  response.writeHead(200, { 'Content-Type': pathname === '/' ? 'text/html' : 'text/javascript' });
  response.end(readFileSync(files[pathname]));
});
await new Promise((listening) => { pageServer.listen(0, '127.0.0.1', listening); });
const origin = `http://127.0.0.1:${pageServer.address().port}`;

mkdirSync(wanted.playlists, { recursive: true });
const browser = await launch(tools, executablePath);
const context = await browser.newContext({ viewport: { width: 640, height: 360 } });
context.setDefaultTimeout(PATIENCE_MS);
let playlists = 0;
context.on('response', async (response) => {
  if (!/\.m3u8(\?|$)/.test(response.url()) || response.status() !== 200) return;
  // A page that closes takes its last answers with it.
  const text = await response.text().catch(() => null);
  playlists += 1;
  if (text) writeFileSync(`${wanted.playlists}/${playlists}.m3u8`, text);
});

// What a page sees of its player.
const look = (page) => page.evaluate(() => {
  const video = document.querySelector('video');
  const { fatal, parts, fragments, details, ageMs } = window.seen;
  return {
    fatal, parts, fragments, details, ageMs: ageMs?.() ?? null, time: video.currentTime, height: video.videoHeight,
    frames: video.getVideoPlaybackQuality().totalVideoFrames, ready: video.readyState, network: video.networkState,
    buffered: [...Array(video.buffered.length).keys()].map((at) => [video.buffered.start(at), video.buffered.end(at)]),
  };
});

// Until a condition on `{ time, height, failed }` holds; a player that failed ends the wait.
async function until(page, name, condition, limit) {
  try {
    await page.waitForFunction(([text, least]) => {
      const { currentTime: time, videoHeight: height } = document.querySelector('video');
      if (window.seen?.fatal.length) return true;
      return ({
        begun: time > 0 && height > 0, heard: time > 0, height: height === least, reached: time >= least,
      })[text];
    }, [condition, limit], { polling: 100 });
  } catch (error) {
    throw new Error(`${name}: not ${condition} ${limit ?? ''}: ${JSON.stringify(await look(page))}`, { cause: error });
  }
  const now = await look(page);
  assert.deepEqual(now.fatal, [], `${name}: ${JSON.stringify(now)}`);
  return now;
}

async function open({ name, player, url, sound }) {
  const page = await context.newPage();
  page.on('pageerror', (error) => console.log(`${name}: exception: ${error.stack ?? error}`));
  page.on('console', (message) => {
    if (message.type() === 'error') console.log(`${name}: console: ${message.text()}`);
  });
  await page.goto(`${origin}/#${encodeURIComponent(JSON.stringify({ player, url }))}`);
  return { page, begun: await until(page, name, sound ? 'heard' : 'begun') };
}

// Until nothing more has come for a while.
const isQuiet = (page) => page.waitForFunction((least) => {
  const { buffered } = document.querySelector('video');
  const end = buffered.length ? buffered.end(buffered.length - 1) : 0;
  if (window.seen.end !== end) Object.assign(window.seen, { end, since: performance.now() });
  return performance.now() - window.seen.since > least;
}, QUIET_MS, { polling: 100 });

async function play({ name, player, url, seconds, height, sound, gives_up: givesUp }, { page, begun }) {
  if (givesUp) {
    await page.waitForFunction(() => window.seen.fatal.length > 0, null, { polling: 100 });
    console.log(`gave up: ${name}: ${JSON.stringify(await look(page))}`);
    await page.close();
    return;
  }
  const begin = height ? await until(page, name, 'height', height) : begun;
  const now = await until(page, name, 'reached', begin.time + seconds);
  assert.ok(sound || now.frames > 10, `${name}: ${now.frames} frames`);
  if (player === 'hls' && !sound && !/container=ts/.test(url)) assert.ok(now.parts > 3, `${name}: ${now.parts} parts`);
  if (player === 'hls-whole') assert.equal(now.parts, 0);
  console.log(`played: ${name}: ${JSON.stringify(now)}`);
  await page.close();
}

// All of them are waited for, so that one failure tells of all.
async function all(promises) {
  const results = await Promise.allSettled(promises);
  const reasons = results.filter(({ status }) => status === 'rejected').map(({ reason }) => reason.message);
  assert.deepEqual(reasons, []);
  return results.map(({ value }) => value);
}

try {
  const pages = await all(wanted.players.map(open));
  console.log('step: all play');
  if (wanted.players.some(({ height }) => height)) {
    await all(pages.filter((_, at) => wanted.players[at].player === 'mpegts').map(({ page }) => isQuiet(page)));
    console.log('step: all wait');
  }
  await all(wanted.players.map((player, at) => play(player, pages[at])));
  console.log('done');
} catch (error) {
  console.log(error);
  process.exitCode = 1;
} finally {
  await browser.close();
  pageServer.close();
}
