// The page through nginx, on RabbitMQ and PostgreSQL: what `make run-rabbitmq` starts, driven in Chromium.

import { expect, test } from '@playwright/test';
import { spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';
import { allTexts } from './support';

const root = resolve(import.meta.dirname, '../..');
// As `make run-rabbitmq` keeps it, and short: PostgreSQL's socket has a path of at most 107 bytes.
const data = mkdtempSync(join(tmpdir(), 'fpesa-run-'));
/** The folder that the project's RabbitMQ is in. */
const broker = (): string => test.info().project.metadata.rabbitmq as string;
let house: ChildProcess;
let url = '';

test.beforeAll(async () => {
  test.setTimeout(180_000);
  const executable = process.env.FPESA_BIN ?? join(root, 'target/debug/fpesa');
  const env = { ...process.env, FPESA_BIN: executable, FPESA_PORT: '0', FPESA_DATA: data, FPESA_RABBITMQ: broker() };
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

const pid = (name: string): number => Number(readFileSync(join(data, `run/${name}.pid`), 'utf8'));

/** Ends a process, and waits until its connections are closed: what is sent before that is under way. */
async function killed(id: number): Promise<void> {
  process.kill(id, 'SIGKILL');
  const state = (): string => {
    try {
      // Its files are open until the last of its threads is gone, and the first one may be gone before.
      if (readdirSync(`/proc/${id}/task`).length > 1) return 'threads';
      return /\) (\w)/.exec(readFileSync(`/proc/${id}/stat`, 'utf8'))?.[1] ?? '';
    } catch {
      return '';
    }
  };
  await expect.poll(state, { intervals: [5] }).toMatch(/^[ZX]?$/);
}

/** The environment that the node runs in, for its own tool. */
function rabbitmqctl(...args: string[]): void {
  const of = readFileSync(`/proc/${pid('rabbitmq')}/environ`, 'utf8').split('\0');
  const env = Object.fromEntries(
    of.flatMap((one) => (one.includes('=') ? [one.split(/=(.*)/s).slice(0, 2)] : [])) as [string, string][],
  );
  const done = spawnSync(join(broker(), 'lib/rabbitmq/bin/rabbitmqctl'), args, { env, encoding: 'utf8' });
  expect(done.status, done.stderr).toBe(0);
}

test('the page gets every message through nginx, and a gateway may die', async ({ page }) => {
  test.setTimeout(120_000);
  const errors: string[] = [];
  page.on('console', (message) => {
    if (message.type() === 'error') errors.push(message.text());
  });
  await page.goto(`${url}/#/send/post-message`);
  await expect(page.locator('.state')).toHaveText('Live');
  await page.locator('#f-body_2ftext').fill('Hello through nginx');
  await page.getByRole('button', { name: 'Send', exact: true }).click();
  await expect(page.locator('.kept')).toContainText('Kept as');
  await page.getByRole('link', { name: 'Live', exact: true }).click();
  await expect(page.locator('.messages .text')).toHaveText(['Hello through nginx']);

  const sent = ['Hello through nginx'];
  const answers: number[] = [];
  for (let n = 0; n < 40; n++) {
    if (n === 10) await killed(pid('gateway-1'));
    const response = await post(`message ${n}`);
    answers.push(response.status);
    if (response.status === 202) sent.push(`message ${n}`);
  }
  // Nothing was under way when it died, and nobody is sent to a gateway that is not there.
  expect(answers).toEqual(answers.map(() => 202));
  await expect(page.locator('.numbers')).toContainText(`${sent.length} shown`);
  // Seen live first, then confirmed by history.
  await expect(page.locator('.row .mark')).toHaveCount(0);
  expect(await allTexts(page)).toEqual(sent.toReversed());
  await page.screenshot({ path: 'test-results/nginx.png' });
  // The same build, the same views: two workers of each kind.
  await page.getByRole('link', { name: 'Table', exact: true }).click();
  await expect(page.locator('.lane').first().locator('.queue')).toContainText('2 consumers');
  await page.getByRole('link', { name: 'Pulse', exact: true }).click();
  await expect(page.locator('canvas').first()).toBeVisible();
  await expect(page.getByText('RabbitMQ counts them')).toBeVisible();
  expect(errors).toEqual([]);
});

test('a message that a full queue refused is on the feed all the same, and is marked', async ({ page }) => {
  test.setTimeout(90_000);
  await page.clock.install();
  await page.goto(url);
  await expect(page.locator('.state')).toHaveText('Live');
  const persist = ['persist-1', 'persist-2'].map(pid);
  const refused: string[] = [];
  try {
    // Nobody takes messages, and the queue takes no further one.
    for (const one of persist) process.kill(one, 'SIGSTOP');
    const full = '{"max-length":1,"overflow":"reject-publish"}';
    rabbitmqctl('set_policy', 'full', '^messages.persist$', full, '--apply-to', 'queues');
    // What the stopped workers were given already does not count: some thousands are taken before the first refusal.
    for (let n = 0; refused.length < 3 && n < 60; n += 1) {
      const batch = Array.from({ length: 100 }, (_, m) => `filling ${n}-${m}.`);
      const answers = await Promise.all(batch.map(post));
      refused.push(...batch.filter((_, m) => answers[m]?.status === 503));
    }
    expect(refused.length).toBeGreaterThan(2);
    await page.getByLabel('Text filter').fill(refused.at(-1) ?? '');
    await expect(page.locator('.messages .text')).toHaveText([refused.at(-1) ?? '']);
    await expect(page.locator('.row .mark')).toHaveText(['not in history yet']);
    rabbitmqctl('clear_policy', 'full');
  } finally {
    for (const one of persist) process.kill(one, 'SIGCONT');
  }
  // The queue has room again, and workers: history goes on, without it.
  await page.clock.fastForward(25_000);
  await expect(page.locator('.row .mark')).toHaveText(['not kept']);
  // The broker takes a policy away in its own time.
  await expect.poll(async () => (await post('is there room?')).status).toBe(202);
  expect((await post('and on')).status).toBe(202);
  await page.getByLabel('Text filter').fill('and on');
  await expect(page.locator('.messages .text')).toHaveText(['and on']);
  await expect(page.locator('.row .mark')).toHaveCount(0);
});

test('a page that is refused and a path that is not there are told as problems', async () => {
  const refused = await fetch(`${url}/api/v1/messages`, { method: 'POST', body: 'no json' });
  expect(refused.status).toBe(415);
  const missing = await fetch(`${url}/api/v1/nothing`);
  expect(missing.status).toBe(404);
  for (const answer of [refused, missing]) expect(answer.headers.get('content-type')).toBe('application/problem+json');
});
