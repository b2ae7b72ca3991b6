import { expect, type Page } from '@playwright/test';
import { accessible, open, test } from './support';
import { Gateway } from './gateway';

test('the table shows who consumes, and a broken edit with its line', async ({ page, gateway, errors }) => {
  await open(page, gateway, 'table');
  const lane = page.locator('.lane', { hasText: 'POST' });
  await expect(lane).toContainText('amq.topic');
  await expect(lane).toContainText('messages.{body.topic:-general}');
  await expect(lane.locator('.queue')).toContainText('messages.persist');
  await expect(lane.locator('.queue')).toContainText('1 consumer');
  await expect(lane.locator('.worker')).toContainText('persist');
  await expect(page.getByText('generation 1')).toBeVisible();
  gateway.edit((table) => table.replace('exchange: amq.topic\n', 'exchnage: amq.topic\n'));
  await expect(page.getByText('The last edit is not in force')).toBeVisible();
  const told = page.locator('.problems li', { hasText: 'did you mean' });
  await expect(told).toContainText(/routes\.yaml:\d+:\d+/);
  await expect(told).toContainText('publish has no key exchnage');
  await expect(told.locator('.caret')).toContainText('^^^^^^^^');
  await page.screenshot({ path: 'test-results/table-broken.png' });
  await accessible(page, 'a broken table');
  gateway.edit((table) => table.replace('exchnage', 'exchange').replace('  persist: {', '  keeper: { kind: persist,'));
  await expect(page.getByText('generation 2')).toBeVisible();
  await expect(page.getByText('The last edit is not in force')).toBeHidden();
  await expect(lane.locator('.worker')).toContainText('keeper');
  // Nobody serves history: its queue is gone.
  gateway.edit((table) => table.replace(/\n {2}history: \{[^}]*\}/, ''));
  await expect(
    page
      .locator('.lane', { hasText: 'list-messages' })
      .or(page.locator('.lane', { hasText: 'newest first' }))
      .locator('.queue'),
  ).toContainText('nobody consumes');
  expect(errors).toEqual([]);
});

test('the pulse beats', async ({ page, gateway, errors }) => {
  await open(page, gateway, 'pulse');
  await gateway.postAll(Array.from({ length: 60 }, (_, n) => ({ text: `beat ${n}` })));
  for (let n = 0; n < 10; n += 1) await fetch(`${gateway.url}/api/v1/messages?limit=5`);
  const requests = page.locator('.chart', { hasText: 'Requests' });
  await expect(requests.locator('canvas')).toBeVisible();
  await expect(page.locator('.chart')).toHaveCount(4);
  // The count of the interval that it fell in.
  await expect(requests.getByRole('img')).toHaveAttribute('aria-label', /2xx [1-9]/);
  await expect(page.locator('.chart', { hasText: 'Time to answer' }).locator('.keys')).toContainText(' ms');
  await expect(page.locator('.chart', { hasText: 'Feed sessions' }).locator('.keys')).toContainText('1');
  expect(errors).toEqual([]);
});

test('everything can be reached and done by keyboard', async ({ page, gateway, errors }) => {
  for (const text of ['first', 'second', 'third']) await gateway.post({ text });
  await open(page, gateway);
  await expect(page.locator('.messages > li')).toHaveCount(3);
  const focused = () => page.evaluate(() => document.activeElement?.textContent?.trim() ?? '');
  const tabTo = async (wanted: string | RegExp): Promise<void> => {
    for (let n = 0; n < 60; n += 1) {
      await page.keyboard.press('Tab');
      const here = await focused();
      if (typeof wanted === 'string' ? here === wanted : wanted.test(here)) return;
    }
    throw new Error(`the tab key never came to ${String(wanted)}`);
  };
  await page.keyboard.press('Tab');
  expect(await focused()).toBe('Skip to the content');
  await tabTo('Pause');
  await page.keyboard.press('Enter');
  await tabTo('Resume');
  await page.keyboard.press('Enter');
  // One stop for the whole list; arrows move in it.
  await tabTo(/third/);
  await page.keyboard.press('ArrowDown');
  expect(await focused()).toContain('second');
  await page.keyboard.press('End');
  expect(await focused()).toContain('first');
  await page.keyboard.press('Home');
  await page.keyboard.press('Enter');
  await expect(page.locator('li.open .text')).toHaveText('third');
  await tabTo('Copy as curl');
  await page.keyboard.press('Control+Home');
  await page.reload();
  await expect(page.locator('.messages > li')).toHaveCount(3);
  await tabTo('Send');
  await page.keyboard.press('Enter');
  await expect(page.locator('form.request')).toBeVisible();
  await page.evaluate(() => document.querySelector<HTMLElement>('.request')?.scrollIntoView());
  for (let n = 0; n < 40; n += 1) {
    await page.keyboard.press('Tab');
    if (await page.evaluate(() => document.activeElement?.tagName === 'TEXTAREA')) break;
  }
  await page.keyboard.type('by keyboard alone');
  await tabTo(/^Send$/);
  await page.keyboard.press('Enter');
  await expect(page.locator('.status')).toContainText('202');
  expect(errors).toEqual([]);
});

const VIEWS = ['live', 'history', 'send/post-message', 'table', 'pulse'];

/** A day at a small shop. */
async function fill(gateway: Gateway): Promise<void> {
  const topics = ['orders', 'news', 'general', 'sensors'];
  const says = [
    'An order came in',
    'The kettle is on again',
    'Ana says hello from Maputo',
    'The parcel left the harbour this morning, and it should be there by Thursday if the weather holds',
    'Door 4 is open',
  ];
  for (let n = 0; n < 60; n += 1) {
    const extra =
      n % 4 === 0
        ? { order: { id: 4711 + n, lines: ['tea', 'cups'], paid: n % 8 === 0 } }
        : n % 4 === 3
          ? { celsius: 20 + n / 10 }
          : {};
    await gateway.post({ text: says[n % says.length], topic: topics[n % topics.length], ...extra });
  }
}

async function overflow(page: Page): Promise<number> {
  return page.evaluate(() =>
    Math.max(
      document.documentElement.scrollWidth - innerWidth,
      ...[...document.querySelectorAll('main')].map((one) => one.scrollWidth - one.clientWidth),
    ),
  );
}

for (const scheme of ['light', 'dark'] as const) {
  test(`every view, from 360 px to 4K, ${scheme}`, async ({ page, gateway, errors }) => {
    test.setTimeout(120_000);
    await page.emulateMedia({ colorScheme: scheme });
    await fill(gateway);
    await open(page, gateway);
    for (let n = 0; n < 3; n += 1) await fetch(`${gateway.url}/api/v1/messages?limit=20`);
    for (const view of VIEWS) {
      const name = view.split('/')[0] ?? view;
      await page.goto(`${gateway.url}/#/${view}`);
      if (name === 'live' || name === 'history') {
        await expect(page.locator('.messages > li').first()).toBeVisible();
        await page.locator('.row').nth(3).click();
      }
      if (name === 'send') await expect(page.locator('form.request')).toBeVisible();
      if (name === 'table') await expect(page.locator('.queue .lamp').first()).toContainText('consumer');
      if (name === 'pulse') await expect(page.locator('canvas').first()).toBeVisible();
      for (const [width, height] of [
        [360, 740],
        [1280, 800],
        [2560, 1440],
      ] as const) {
        await page.setViewportSize({ width, height });
        await page.mouse.move(2, height - 2);
        expect(await overflow(page), `${view} at ${width}`).toBeLessThanOrEqual(0);
        if (width !== 2560 || scheme === 'light')
          await page.screenshot({ path: `test-results/${name}-${width}-${scheme}.png` });
        if (width === 1280 || (width === 360 && scheme === 'light'))
          await accessible(page, `${view} at ${width}, ${scheme}`);
      }
      await page.setViewportSize({ width: 1280, height: 800 });
    }
    expect(errors).toEqual([]);
  });
}
