// The page through nginx, on RabbitMQ and PostgreSQL: what `make run-rabbitmq` starts, driven in Chromium.

import { expect, test } from '@playwright/test';
import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const root = resolve(import.meta.dirname, '../..');
// As `make run-rabbitmq` keeps it, and short: PostgreSQL's socket has a path of at most 107 bytes.
const data = mkdtempSync(join(tmpdir(), 'fpesa-run-'));
let house: ChildProcess;
let url = '';

test.beforeAll(async () => {
  test.setTimeout(180_000);
  const executable = process.env.FPESA_BIN ?? join(root, 'target/debug/fpesa');
  const env = { ...process.env, FPESA_BIN: executable, FPESA_PORT: '0', FPESA_DATA: data };
  const started = spawn(join(root, 'deploy/run-rabbitmq'), { cwd: root, env, stdio: ['ignore', 'pipe', 'inherit'] });
  house = started;
  url = await new Promise<string>((found, failed) => {
    started.once('exit', (code) => failed(new Error(`it ended with ${code} before it ran`)));
    createInterface({ input: started.stdout }).on('line', (line) => {
      const address = /^everything runs on (http:\S+)/.exec(line)?.[1];
      if (address !== undefined) found(address);
    });
  });
});

test.afterAll(async () => {
  test.setTimeout(60_000);
  const ended = new Promise<number | null>((done) => house.once('exit', done));
  // As Ctrl-C does.
  house.kill('SIGINT');
  expect(await ended).toBe(0);
  rmSync(data, { recursive: true, force: true });
});

const post = (text: string): Promise<Response> =>
  fetch(`${url}/api/v1/messages`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ text, topic: 'nginx' }),
  });

test('the page gets every message through nginx, and a gateway may die', async ({ page }) => {
  test.setTimeout(120_000);
  const errors: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text());
  });
  await page.goto(url);
  await expect(page.getByRole('status').first()).toHaveText('Live');
  await page.getByLabel('Text').fill('Hello through nginx');
  await page.getByRole('button', { name: 'Send' }).click();
  await expect(page.getByText('Kept as')).toBeVisible();
  const texts = page.locator('.messages .text');
  await expect(texts).toHaveText(['Hello through nginx']);

  const sent = ['Hello through nginx'];
  const answers: number[] = [];
  for (let n = 0; n < 40; n++) {
    if (n === 10) process.kill(Number(readFileSync(join(data, 'run/gateway-1.pid'), 'utf8')), 'SIGKILL');
    const response = await post(`message ${n}`);
    answers.push(response.status);
    if (response.status === 202) sent.push(`message ${n}`);
  }
  // Nothing was under way when it died, and nobody is sent to a gateway that is not there.
  expect(answers).toEqual(answers.map(() => 202));
  await expect(texts).toHaveText(sent.toReversed());
  // Seen live first, then confirmed by history.
  await expect(page.locator('.mark')).toHaveCount(0);
  await page.screenshot({ path: 'test-results/nginx.png' });
  expect(errors).toEqual([]);
});

test('a page that is refused and a path that is not there are told as problems', async () => {
  const refused = await fetch(`${url}/api/v1/messages`, { method: 'POST', body: 'no json' });
  expect(refused.status).toBe(415);
  const missing = await fetch(`${url}/api/v1/nothing`);
  expect(missing.status).toBe(404);
  for (const answer of [refused, missing]) expect(answer.headers.get('content-type')).toBe('application/problem+json');
});
