import { expect, test as base, type Page } from '@playwright/test';
import { Gateway } from './gateway';

const test = base.extend<{ gateway: Gateway; errors: string[] }>({
  // eslint-disable-next-line no-empty-pattern
  gateway: async ({}, use) => {
    const gateway = new Gateway();
    await gateway.start();
    await use(gateway);
    await gateway.stop();
    gateway.remove();
  },
  errors: async ({ page }, use) => {
    const errors: string[] = [];
    page.on('console', (message) => {
      if (message.type() === 'error') errors.push(message.text());
    });
    page.on('pageerror', (error) => errors.push(String(error)));
    await use(errors);
  },
});

async function open(page: Page, gateway: Gateway): Promise<void> {
  await page.goto(gateway.url);
  await expect(page.getByRole('status').first()).toHaveText('Live');
}

const texts = (page: Page): Promise<string[]> => page.locator('.messages .text').allTextContents();

test('a message is sent, seen live by another page, and there after a reload', async ({
  page,
  context,
  gateway,
  errors,
}) => {
  await open(page, gateway);
  await expect(page.getByText('No messages yet.')).toBeVisible();
  await page.screenshot({ path: 'test-results/empty.png' });
  const other = await context.newPage();
  await open(other, gateway);
  await page.getByLabel('Text').fill('Hello, world');
  await page.getByLabel('Topic').fill('greetings');
  await page.getByRole('button', { name: 'Send' }).click();
  await expect(page.getByText('Kept as')).toBeVisible();
  for (const one of [page, other]) {
    await expect(one.locator('.messages .text')).toHaveText(['Hello, world']);
    await expect(one.locator('.topic')).toHaveText(['messages/greetings']);
    // Seen live first, then confirmed by history.
    await expect(one.locator('.mark')).toHaveCount(0);
  }
  await page.reload();
  await expect(page.locator('.messages .text')).toHaveText(['Hello, world']);
  expect(errors).toEqual([]);
});

test('what the gateway refuses is shown at its field', async ({ page, gateway }) => {
  await open(page, gateway);
  await page.getByLabel('Topic').fill('not/a topic');
  await page.getByRole('button', { name: 'Send' }).click();
  await expect(page.locator('#text-error')).toBeVisible();
  await expect(page.locator('#topic-error')).toBeVisible();
  await page.screenshot({ path: 'test-results/refused.png' });
  await page.getByLabel('JSON').check();
  await page.getByLabel('Body').fill('{"text": nope}');
  await page.getByRole('button', { name: 'Send' }).click();
  await expect(page.getByText('Malformed body')).toBeVisible();
});

test('older pages join without a seam, and big numbers stay as they are', async ({ page, gateway }) => {
  for (let n = 0; n < 120; n += 1) expect((await gateway.post({ text: `message ${n}` })).status).toBe(202);
  await fetch(`${gateway.url}/api/v1/messages`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: '{"text":"big","n":12345678901234567890.10}',
  });
  await open(page, gateway);
  await expect(page.locator('.messages li')).toHaveCount(50);
  await expect(page.locator('pre.code').first()).toContainText('12345678901234567890.10');
  await page.getByRole('button', { name: 'Older' }).click();
  await expect(page.locator('.messages li')).toHaveCount(100);
  await page.getByRole('button', { name: 'Older' }).click();
  await expect(page.locator('.messages li')).toHaveCount(121);
  await expect(page.getByRole('button', { name: 'Older' })).toHaveCount(0);
  expect(new Set(await texts(page)).size).toBe(121);
});

test('a cut in the middle of a numbered stream loses nothing and doubles nothing', async ({ page, gateway }) => {
  await open(page, gateway);
  let next = 0;
  const send = async (count: number): Promise<void> => {
    for (const last = next + count; next < last; next += 1) {
      expect((await gateway.post({ text: `number ${next}` })).status).toBe(202);
    }
  };
  await send(20);
  await expect(page.locator('.messages li')).toHaveCount(20);
  await gateway.stop('SIGKILL');
  await expect(page.getByRole('status').first()).not.toHaveText('Live');
  await gateway.start();
  // Before the page is back: only history can tell of these.
  await send(20);
  await expect(page.getByRole('status').first()).toHaveText('Live', { timeout: 30_000 });
  await send(5);
  await expect(page.locator('.messages li')).toHaveCount(45);
  const expected = Array.from({ length: 45 }, (_, n) => `number ${44 - n}`);
  expect(await texts(page)).toEqual(expected);
});

for (const scheme of ['light', 'dark'] as const) {
  test(`it is readable from 360 px on, ${scheme}`, async ({ page, gateway }) => {
    await page.emulateMedia({ colorScheme: scheme });
    await gateway.post({ text: 'The first message of the day', topic: 'news' });
    await gateway.post({ text: 'An order came in', topic: 'orders', order: { id: 4711, items: ['tea', 'cups'] } });
    await gateway.post({ text: 'A longer one.\nIt has two lines.', topic: 'general' });
    await open(page, gateway);
    await expect(page.locator('.messages li')).toHaveCount(3);
    await page.screenshot({ path: `test-results/wide-${scheme}.png` });
    await page.setViewportSize({ width: 360, height: 740 });
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
    expect(overflow).toBeLessThanOrEqual(0);
    await page.screenshot({ path: `test-results/narrow-${scheme}.png`, fullPage: true });
  });
}
