import { expect } from '@playwright/test';
import { readFileSync } from 'node:fs';
import { allTexts, open, test } from './support';

test('history is endless, without a seam, and joined with live', async ({ page, gateway, errors }) => {
  await gateway.postAll(
    Array.from({ length: 330 }, (_, n) => ({ text: `message ${n}`, topic: n % 3 === 0 ? 'a' : 'b' })),
  );
  await open(page, gateway, 'history');
  await expect(page.locator('.numbers')).toContainText('joined with live');
  expect(await page.locator('.messages > li').count()).toBeLessThan(60);
  // Walks down to the beginning; what comes meanwhile joins above.
  const walk = allTexts(page);
  await gateway.post({ text: 'meanwhile' });
  await walk;
  await expect(page.getByText('This is the beginning.')).toBeAttached();
  const all = await allTexts(page);
  expect(all.length).toBe(331);
  expect(all[0]).toBe('meanwhile');
  expect(new Set(all).size).toBe(331);

  await page.getByLabel('Topic filter').fill('messages/a');
  await page.getByLabel('Topic filter').press('Enter');
  await expect(page).toHaveURL(/topic=messages%2Fa/);
  await expect(page.locator('.row .topic').first()).toHaveText('messages/a');
  expect((await allTexts(page)).length).toBe(110);

  const [download] = await Promise.all([
    page.waitForEvent('download'),
    page.getByRole('button', { name: 'Download' }).click(),
  ]);
  const lines = readFileSync(await download.path(), 'utf8')
    .trimEnd()
    .split('\n');
  expect(download.suggestedFilename()).toMatch(/\.ndjson$/);
  expect(lines.length).toBe(110);
  const events = lines.map((line) => JSON.parse(line) as { time: string; subject: string });
  expect(events.every((event) => event.subject === 'messages/a')).toBe(true);
  expect(events.map((event) => event.time)).toEqual(events.map((event) => event.time).sort());
  expect(errors).toEqual([]);
});

test('one message has an address, with what was around it; a time can be jumped to', async ({
  page,
  gateway,
  errors,
}) => {
  await gateway.postAll(
    Array.from({ length: 40 }, (_, n) => ({ text: `message ${n}` })),
    1,
  );
  let items: { id: string; time: string }[] = [];
  await expect
    .poll(async () => {
      const answer = await fetch(`${gateway.url}/api/v1/messages?limit=40`);
      items = ((await answer.json()) as { items: typeof items }).items;
      return items.length;
    })
    .toBe(40);
  const wanted = items[19];
  if (wanted === undefined) throw new Error('history is short');
  await open(page, gateway, `history/${wanted.id}`);
  await expect(page.locator('.message.marked .text')).toHaveText('message 20');
  await expect(page.locator('.message.marked .detail code').first()).toHaveText(wanted.id);
  await expect(page.locator('.messages .text').first()).toHaveText('message 20');
  await page.getByRole('button', { name: 'Newer messages' }).click();
  await expect(page.locator('.numbers')).toContainText('joined with live');
  await gateway.post({ text: 'and on' });
  expect((await allTexts(page))[0]).toMatch(/message 39|and on/);
  await expect.poll(async () => (await allTexts(page))[0]).toBe('and on');

  await open(page, gateway, `history?until=${encodeURIComponent(wanted.time)}`);
  await expect(page.locator('.messages .text').first()).toHaveText('message 19');
  await page.getByRole('button', { name: 'Newest' }).click();
  await expect(page.locator('.messages .text').first()).toHaveText('and on');
  expect(errors).toEqual([]);
});

test('what is not there is told, and what to do next', async ({ page, gateway }) => {
  await open(page, gateway, 'history');
  await expect(page.getByText('History is empty')).toBeVisible();
  await page.goto(`${gateway.url}/#/history/01a20b6d-3e81-7750-9547-2e605413c42a`);
  await expect(page.getByText('No such message')).toBeVisible();
  await page.goto(`${gateway.url}/#/history?topic=nothing%2Fhere`);
  await expect(page.getByText('History has no message of nothing/here')).toBeVisible();
  await gateway.stop('SIGKILL');
  await page.goto('about:blank');
  await gateway.start();
  await open(page, gateway, 'live');
  await gateway.stop('SIGKILL');
  await page.getByRole('link', { name: 'History' }).first().click();
  await expect(page.getByRole('alert').getByText('No connection')).toBeVisible();
  await gateway.start();
  await page.getByRole('button', { name: 'Try again' }).click();
  await expect(page.getByText('History is empty')).toBeVisible();
});
