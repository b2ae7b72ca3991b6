import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { defineConfig } from '@playwright/test';

// Debian's Chromium: no browser is downloaded.
const executablePath = process.env.FPESA_TEST_CHROMIUM ?? '/usr/bin/chromium';
if (!existsSync(executablePath)) throw new Error(`${executablePath} is missing: run scripts/setup`);

// The one of Debian 12, and that of Debian 13 as scripts/servers unpacks it.
const servers = resolve(import.meta.dirname, '../.tools/servers');
const rabbitmq = (version: string): string => {
  const unpacked = `${servers}/rabbitmq-${version}/usr`;
  return existsSync(unpacked) ? unpacked : '/usr';
};
const onRabbitmq = /nginx\.spec\.ts/;

export default defineConfig({
  testDir: 'e2e',
  outputDir: 'test-results',
  workers: 1,
  timeout: 60_000,
  expect: { timeout: 15_000 },
  reporter: 'list',
  projects: [
    { name: 'embedded', testIgnore: onRabbitmq },
    { name: 'rabbitmq-3.10', testMatch: onRabbitmq, metadata: { rabbitmq: rabbitmq('3.10') } },
    { name: 'rabbitmq-4.0', testMatch: onRabbitmq, metadata: { rabbitmq: `${servers}/rabbitmq-4.0/usr` } },
  ],
  use: {
    viewport: { width: 1280, height: 800 },
    launchOptions: {
      executablePath,
      args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync'],
    },
  },
});
