// Starts headless Chromium the same way for every test that shows pages.

import { createRequire } from 'node:module';

const flags = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--autoplay-policy=no-user-gesture-required', '--host-resolver-rules=MAP *.example.com 127.0.0.1',
];

// `tools` is the folder of the installed packages.
export async function launch(tools, executablePath) {
  const { chromium } = createRequire(`${tools}/`)('playwright-core');
  return chromium.launch({ executablePath, args: flags });
}
