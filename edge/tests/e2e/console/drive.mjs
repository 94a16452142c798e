// Drives the console in headless Chromium, as an operator would. Started by console.rs:
//
//   node drive.mjs TOOLS CHROMIUM SCENARIO JSON
//
// Each scenario is a function below; JSON is what it needs. Prints a line per step, `done` at the end, and
// fails with the page's own errors.

import { mkdirSync, writeFileSync } from 'node:fs';
import assert from 'node:assert/strict';
import { launch } from '../browser.mjs';

const [tools, executablePath, scenario, json] = process.argv.slice(2);
const wanted = JSON.parse(json);
const PATIENCE_MS = 30_000;

const browser = await launch(tools, executablePath);
const faults = [];

// A page whose errors are collected: a broken policy, a missing file, an exception.
async function open(hash, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options });
  context.setDefaultTimeout(PATIENCE_MS);
  const page = await context.newPage();
  page.on('pageerror', (error) => faults.push(`exception: ${error.stack ?? error}`));
  page.on('console', (message) => {
    const text = message.text();
    // What the tests bring about on purpose: refusals and a stopped server.
    const isMeant = /status of (401|403|404)|WebSocket|ERR_CONNECTION|ERR_EMPTY|ERR_ABORTED|ERR_FAILED/.test(text);
    if (message.type() === 'error' && !isMeant) faults.push(`console: ${text}`);
  });
  await page.goto(`${wanted.console}${hash}`);
  return page;
}

const step = (text) => console.log(`step: ${text}`);

// Keeps what the page looks like, if somebody wants to see it.
async function shot(page, name) {
  if (!process.env.CONSOLE_SHOTS) return;
  mkdirSync(process.env.CONSOLE_SHOTS, { recursive: true });
  await page.screenshot({ path: `${process.env.CONSOLE_SHOTS}/${name}.png`, fullPage: true });
}

// The picture moves on by itself.
async function advances(page, seconds) {
  const time = () => page.evaluate(() => document.querySelector('video').currentTime);
  await page.waitForFunction(() => document.querySelector('video').currentTime > 0 &&
    document.querySelector('video').videoWidth > 0);
  const begin = await time();
  await page.waitForFunction((until) => document.querySelector('video').currentTime >= until, begin + seconds);
  const quality = await page.evaluate(() => document.querySelector('video').getVideoPlaybackQuality().totalVideoFrames);
  assert.ok(quality > 0, 'frames were shown');
}

const scenarios = {
  // A stream is listed, played by WebSocket and by HLS; its addresses and QR code are there.
  async watch() {
    const page = await open('');
    const row = page.locator('tr', { has: page.getByRole('link', { name: `live/${wanted.stream}`, exact: true }) });
    await row.getByText('live', { exact: true }).waitFor();
    await row.getByText('H.264 + AAC').waitFor();
    await row.getByText('320×180').waitFor();
    await page.waitForFunction(() => /[1-9].*b\/s/.test(document.querySelector('td[data-label="Bit rate"]').textContent));
    await shot(page, 'streams');
    step('listed with its figures');
    await row.getByRole('link').press('Enter');
    await advances(page, 2);
    await page.getByText('playing', { exact: true }).waitFor();
    await shot(page, 'player');
    step('played over WebSocket');
    const video = await page.evaluate(() => {
      const { buffered, currentTime } = document.querySelector('video');
      return { behind: buffered.end(buffered.length - 1) - currentTime, kept: currentTime - buffered.start(0) };
    });
    assert.ok(video.behind < 5 && video.kept < 30, JSON.stringify(video));

    for (const name of ['RTMP', 'FLV', 'HLS', 'WebSocket']) {
      const text = await page.getByLabel(`${name} address`, { exact: true }).textContent();
      assert.match(text, new RegExp(`^[a-z]+://127\\.0\\.0\\.1:\\d+/live/${wanted.stream}(\\.|$)`));
    }
    await page.getByRole('button', { name: 'QR code of the HLS address' }).press('Enter');
    const code = page.getByRole('img', { name: /^QR code of the address http/ });
    await code.waitFor();
    await page.waitForFunction(() => document.querySelector('dialog img').naturalWidth > 0);
    await page.keyboard.press('Escape');
    await code.waitFor({ state: 'detached' });
    step('addresses and QR code');

    const playsHls = await page.evaluate(() =>
      document.querySelector('video').canPlayType('application/vnd.apple.mpegurl') !== '');
    await page.getByRole('radio', { name: /^HLS/ }).check();
    if (!playsHls) await page.getByText('This browser has no HLS player of its own').waitFor();
    else if (wanted.hls) await advances(page, 2);
    step(playsHls ? 'played as HLS' : 'HLS is not in this browser, and the page says so');
  },

  // Everything can be reached at the width of a phone, in both themes, and by the keyboard.
  async shapes() {
    const views = ['#/', `#/play/live/${wanted.stream}`, '#/play', '#/clients', '#/addresses', '#/bans', '#/certificates',
      '#/limits'];
    for (const colorScheme of ['dark', 'light']) {
      const page = await open('', { viewport: { width: 360, height: 780 }, colorScheme, reducedMotion: 'reduce' });
      for (const view of views) {
        await page.evaluate((hash) => { location.hash = hash; }, view);
        await page.locator('main h1').waitFor({ state: 'attached' });
        await page.waitForFunction(() => document.querySelector('#server').textContent !== '');
        const wide = await page.evaluate(() => document.documentElement.scrollWidth);
        assert.ok(wide <= 360, `${view} is ${wide} wide`);
        await shot(page, `phone-${colorScheme}-${view.split('/')[1] || 'streams'}`);
      }
      await page.context().close();
    }
    step('phone');
    const page = await open('');
    await page.getByRole('link', { name: `live/${wanted.stream}`, exact: true }).waitFor();
    const reached = new Set();
    for (let presses = 0; presses < 40; presses += 1) {
      await page.keyboard.press('Tab');
      const [name, outline] = await page.evaluate(() => {
        const element = document.activeElement;
        return [element.getAttribute('aria-label') ?? element.id ?? element.textContent, getComputedStyle(element).outlineStyle];
      });
      const text = name || await page.evaluate(() => document.activeElement.textContent);
      if (await page.evaluate(() => document.activeElement === document.body)) break;
      assert.notEqual(outline, 'none', `${text} shows the focus`);
      reached.add(text.trim());
    }
    for (const name of ['skip', 'Streams', 'Clients', 'Limits', 'stream-filter', 'stream-order', `live/${wanted.stream}`]) {
      assert.ok(reached.has(name), `${name} is reached by Tab: ${[...reached]}`);
    }
    step('keyboard');
    const names = await page.evaluate(() => [...document.querySelectorAll('button, a, input, select, canvas, video')]
      .filter((element) => element.checkVisibility() && element.getAttribute('aria-hidden') !== 'true')
      .filter((element) => !(element.labels?.length || element.getAttribute('aria-label') || element.textContent.trim()))
      .map((element) => element.outerHTML));
    assert.deepEqual(names, [], 'every control has a name');
    step('names');
  },

  // A viewer is kicked.
  async kick() {
    const page = await open(`#/clients?stream=${wanted.stream}`);
    await page.getByLabel('Role', { exact: true }).selectOption('subscriber');
    const kick = page.getByRole('button', { name: /^Kick viewer/ });
    await kick.first().waitFor();
    assert.equal(await kick.count(), 1);
    await kick.press('Enter');
    const dialog = page.getByRole('dialog');
    await dialog.waitFor();
    // The focus is on the harmless button, and Escape does nothing to anybody.
    assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Cancel');
    await page.keyboard.press('Escape');
    await dialog.waitFor({ state: 'detached' });
    assert.equal(await kick.count(), 1);
    await kick.press('Enter');
    await dialog.getByRole('button', { name: 'Kick' }).press('Enter');
    await page.getByText('is being closed').waitFor();
    await page.getByText('Nobody is connected.').waitFor();
    step('kicked');
  },

  // The stream is forbidden, listed as such, and resumed.
  async forbid() {
    const page = await open(`#/play/live/${wanted.stream}`);
    await advances(page, 1);
    await page.getByRole('button', { name: 'Forbid…' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('For', { exact: true }).selectOption({ label: '10 minutes' });
    await dialog.getByLabel(/^Reason/).fill('a test of bans');
    await dialog.getByRole('button', { name: 'Forbid' }).click();
    await page.getByText(/is forbidden; [1-9]\d* cut/).waitFor();
    await page.getByText('a test of bans', { exact: false }).first().waitFor();
    // The player of this page was cut too, and says why it cannot come back.
    await page.locator('.screen[data-phase=refused]').waitFor();
    await shot(page, 'forbidden');
    step('forbidden');
    await page.evaluate(() => { location.hash = '#/bans'; });
    const row = page.locator('tr', { hasText: `/live/${wanted.stream}` });
    await row.getByText('a test of bans').waitFor();
    await row.getByRole('button', { name: /^Resume/ }).click();
    await page.getByRole('dialog').getByRole('button', { name: 'Resume' }).click();
    await page.getByText('Nobody is forbidden.').waitFor();
    step('resumed');
  },

  // Signed addresses: made, played, and refused with the reason when their time is over.
  async signed() {
    const page = await open('#/addresses');
    await page.getByLabel('Domain').selectOption('play.example.com');
    await page.getByLabel('Stream').fill(wanted.stream);
    await page.getByRole('button', { name: 'Make addresses' }).press('Enter');
    const address = await page.getByLabel('WebSocket address', { exact: true }).textContent();
    assert.match(address, /^ws:\/\/play\.example\.com:\d+\/live\/[a-z]+\.mp4\?auth_key=/);
    step('made');
    await page.evaluate((hash) => { location.hash = hash; }, `#/play/live/${wanted.stream}?vhost=push.example.com`);
    await page.getByText('Signed by aliyun_a', { exact: false }).waitFor();
    await advances(page, 1);
    step('a signed address plays');
    await page.evaluate(() => { location.hash = '#/play'; });
    await page.getByLabel('Address', { exact: true }).fill(wanted.expired);
    await page.getByRole('button', { name: 'Play', exact: true }).click();
    await page.locator('.screen[data-phase=refused]').waitFor();
    const text = await page.locator('.player-status').textContent();
    assert.ok(text.includes(wanted.reason), text);
    await shot(page, 'expired');
    step('an expired one says why it is refused');
  },

  // The level of the memory budget, what that means, and which steps are in force.
  async memory() {
    const page = await open('#/limits');
    const steps = page.getByRole('list', { name: 'Steps of shedding memory' });
    await page.locator('main').getByText(`Level ${wanted.level} of 5:`, { exact: false }).waitFor();
    await steps.getByText('shed', { exact: true }).nth(wanted.level - 1).waitFor();
    assert.equal(await steps.getByText('shed', { exact: true }).count(), wanted.level);
    assert.equal(await steps.getByText('not yet', { exact: true }).count(), 5 - wanted.level);
    const reason = page.locator('#health').getByText(`memory runs short, level ${wanted.level} of 5`, { exact: false });
    await reason.first().waitFor();
    assert.match(await reason.first().textContent(), /new viewers are refused/);
    await shot(page, 'memory');
    step('shed');
    // The budget is raised, as an operator would who reads this.
    writeFileSync(wanted.file, '');
    const status = await page.evaluate(async () => (await fetch('api/v1/reload', { method: 'POST' })).status);
    assert.equal(status, 200);
    await page.locator('main').getByText('Level 0 of 5:', { exact: false }).waitFor();
    assert.equal(await steps.getByText('shed', { exact: true }).count(), 0);
    await reason.first().waitFor({ state: 'detached' });
    step('nothing is shed any more');
  },

  // The token is asked for, a wrong one is refused, the right one is kept for this tab.
  async token() {
    const page = await open('');
    const dialog = page.getByRole('dialog', { name: 'Admin token' });
    await dialog.getByLabel('Token').fill('this-is-not-the-token');
    await page.keyboard.press('Enter');
    await dialog.getByText('did not take this token').waitFor();
    await dialog.getByLabel('Token').fill(wanted.token);
    await page.keyboard.press('Enter');
    await page.getByText('No stream yet').waitFor();
    await page.reload();
    await page.getByText('No stream yet').waitFor();
    assert.equal(await dialog.count(), 0);
    step('token');
  },
};

try {
  await scenarios[scenario]();
  assert.deepEqual(faults, [], 'the page is without errors');
  console.log('done');
} catch (error) {
  console.log(faults.join('\n'));
  for (const context of browser.contexts()) {
    for (const page of context.pages()) {
      console.log(await page.evaluate(() => document.body.innerText).catch(() => 'no page'));
    }
  }
  console.log(error);
  process.exitCode = 1;
} finally {
  await browser.close();
}
