import { expect } from '@playwright/test';
import { allTexts, Feed, open, test, texts } from './support';

test('a new user is told what to do, and it works', async ({ page, context, gateway, errors }) => {
  await open(page, gateway);
  await expect(page.getByText('No messages yet')).toBeVisible();
  await expect(page.locator('.command')).toContainText(`curl -i ${gateway.url}/api/v1/messages`);
  const other = await context.newPage();
  await open(other, gateway, 'send/post-message');
  await other.getByLabel('text', { exact: false }).first().fill('Hello, world');
  await other.getByLabel('topic', { exact: false }).first().fill('greetings');
  await other.getByRole('button', { name: 'Send', exact: true }).click();
  await expect(other.locator('.status')).toContainText('202');
  await expect(page.locator('.messages .text')).toHaveText(['Hello, world']);
  await expect(page.locator('.row .topic')).toHaveText(['messages/greetings']);
  // Seen live first, then confirmed by history.
  await expect(page.locator('.row .mark')).toHaveCount(0);
  await page.reload();
  await expect(page.locator('.messages .text')).toHaveText(['Hello, world']);
  expect(errors).toEqual([]);
});

test('a cut in the middle of a numbered stream loses nothing and doubles nothing', async ({ page, gateway }) => {
  const feed = await Feed.between(page);
  await open(page, gateway);
  let next = 0;
  const send = async (count: number): Promise<void> => {
    for (const last = next + count; next < last; next += 1) {
      expect((await gateway.post({ text: `number ${next}` })).status).toBe(202);
    }
  };
  await send(10);
  // The stream goes on while the connection is cut, three times.
  for (let cuts = 0; cuts < 3; cuts += 1) {
    const going = send(25);
    await feed.cut();
    await going;
    await expect(page.locator('.state')).toHaveText('Live', { timeout: 30_000 });
  }
  // And the whole gateway goes.
  await gateway.stop('SIGKILL');
  await expect(page.locator('.state')).not.toHaveText('Live');
  await gateway.start();
  // Before the page is back: only history can tell of these.
  await send(15);
  await page.evaluate(() => {
    const button = [...document.querySelectorAll('button')].find((one) => one.textContent?.trim() === 'Try now');
    button?.click();
  });
  await expect(page.locator('.state')).toHaveText('Live', { timeout: 30_000 });
  await send(5);
  await expect(page.locator('.numbers')).toContainText('105 shown');
  await expect(page.locator('.row .mark')).toHaveCount(0);
  expect(await allTexts(page)).toEqual(Array.from({ length: 105 }, (_, n) => `number ${104 - n}`));
});

test('what was refused and yet reached the feed is marked, fades, and goes', async ({ page, gateway }) => {
  const feed = await Feed.between(page);
  await page.clock.install();
  await open(page, gateway);
  await gateway.post({ text: 'kept' });
  await expect(page.locator('.messages .text')).toHaveText(['kept']);
  // History has what is ten seconds newer, and not this.
  feed.carry('refused: the queue is full', 10);
  await expect(page.locator('.messages .text')).toHaveText(['kept', 'refused: the queue is full']);
  await expect(page.locator('.row .mark')).toHaveText(['not in history yet']);
  await page.clock.fastForward(4_000);
  await expect(page.locator('.row .mark')).toHaveText(['not kept']);
  await expect(page.locator('.message.lost .text')).toHaveText(['refused: the queue is full']);
  await page.locator('.message.lost .row').click();
  await expect(page.locator('.message.lost .notice')).toContainText('a queue refused it');
  await page.screenshot({ path: 'test-results/refused.png' });
  await page.clock.fastForward(40_000);
  await expect(page.locator('.messages .text')).toHaveText(['kept']);
});

test('thousands in a burst: few elements, the rest counted, and nothing moves while it is paused', async ({
  page,
  gateway,
  errors,
}) => {
  const feed = await Feed.between(page);
  await open(page, gateway);
  await expect(page.getByText('No messages yet')).toBeVisible();
  // 1,000 a second for six seconds.
  const from = Date.now();
  for (let n = 0; n < 6_000; n += 20) {
    feed.carry(Array.from({ length: 20 }, (_, m) => `burst ${n + m}`));
    const early = n - (Date.now() - from);
    if (early > 0) await new Promise((done) => setTimeout(done, early));
  }
  await expect(page.locator('.messages .text').first()).toHaveText('burst 5999');
  await expect(page.locator('.numbers')).toContainText('5,000 shown');
  await expect(page.locator('.numbers')).toContainText('1,000 older dropped');
  expect(await page.locator('.messages > li').count()).toBeLessThan(80);
  expect(await page.evaluate(() => document.querySelectorAll('*').length)).toBeLessThan(1_500);

  await page.getByRole('button', { name: 'Pause' }).click();
  const before = await texts(page);
  feed.carry(Array.from({ length: 300 }, (_, n) => `later ${n}`));
  await expect(page.getByRole('button', { name: '300 new' })).toBeVisible();
  expect(await texts(page)).toEqual(before);
  await page.getByRole('button', { name: '300 new' }).click();
  await expect(page.locator('.messages .text').first()).toHaveText('later 299');
  // Reading further down pauses by itself; back on top it goes on.
  await page.locator('.scroller').evaluate((box) => box.scrollTo(0, 900));
  await expect(page.getByRole('button', { name: 'Resume' })).toBeVisible();
  feed.carry('the last');
  await expect(page.getByRole('button', { name: '1 new' })).toBeVisible();
  await page.locator('.scroller').evaluate((box) => box.scrollTo(0, 0));
  await expect(page.locator('.messages .text').first()).toHaveText('the last');

  await page.getByLabel('Text filter').fill('later 29');
  await expect(page.locator('.messages .text')).toHaveText(
    [9, 8, 7, 6, 5, 4, 3, 2, 1, 0].map((n) => `later 29${n}`).concat('later 29'),
  );
  await page.getByLabel('Topic filter').fill('orders/#');
  await expect(page.getByText('Nothing here fits the filter')).toBeVisible();
  await page.getByRole('button', { name: 'Clear the filter' }).click();
  await expect(page.locator('.messages .text').first()).toHaveText('the last');
  expect(errors).toEqual([]);
});

test('a message unfolds, and is copied as the command that sends it', async ({ page, context, gateway, errors }) => {
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await gateway.post('{"text":"big","n":12345678901234567890.10,"list":[{"deep":{"er":[1,2,3]}}]}');
  await open(page, gateway);
  await page.locator('.row').click();
  await expect(page.locator('.detail .is-number').first()).toHaveText('12345678901234567890.10');
  const deep = page.locator('.fold', { hasText: '"er"' });
  await expect(page.locator('.detail .is-number')).toHaveCount(4);
  await deep.click();
  await expect(deep).toContainText('3 items');
  await expect(page.locator('.detail .is-number')).toHaveCount(1);
  await page.getByRole('button', { name: 'Copy as curl' }).click();
  await expect(page.getByRole('button', { name: 'Copied' })).toBeVisible();
  const command = await page.evaluate(() => navigator.clipboard.readText());
  expect(command).toContain(`curl -i ${gateway.url}/api/v1/messages`);
  expect(command).toContain('12345678901234567890.10');
  expect(errors).toEqual([]);
});

test('the first load is small on the wire, and only from here', async ({ page, gateway, errors }) => {
  const loaded: { url: string; encoding: string | undefined; size: number }[] = [];
  page.on('response', async (response) => {
    const sizes = await response.request().sizes();
    loaded.push({
      url: response.url(),
      encoding: response.headers()['content-encoding'],
      size: sizes.responseBodySize + sizes.responseHeadersSize,
    });
  });
  await open(page, gateway);
  await expect(page.getByText('No messages yet')).toBeVisible();
  // A blob is the page's own: timers that go on in the background.
  expect(loaded.map(({ url }) => new URL(url.replace('blob:', '')).origin)).toEqual(loaded.map(() => gateway.url));
  const scripts = loaded.filter(({ url }) => url.endsWith('.js'));
  expect(scripts.length).toBeGreaterThan(1);
  expect(scripts.every(({ encoding }) => encoding === 'gzip')).toBe(true);
  // With MQTT.js, which comes later; what the gateway tells of itself is none of it.
  const files = loaded.filter(({ url }) => !/\.json|\/api\//.test(url));
  expect(files.reduce((sum, { size }) => sum + size, 0)).toBeLessThan(200 * 1024);
  const plain = await fetch(`${gateway.url}/`, { headers: { 'accept-encoding': 'identity' } });
  expect(plain.headers.get('content-encoding')).toBeNull();
  expect(plain.headers.get('content-security-policy')).not.toContain('unsafe');
  expect(errors).toEqual([]);
});
