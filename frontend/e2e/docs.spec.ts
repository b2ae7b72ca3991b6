import { expect, test as base, type Page } from '@playwright/test';
import { Gateway } from './gateway';

const test = base.extend<{ gateway: Gateway; errors: string[]; elsewhere: string[] }>({
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
      if (message.type() === 'error' || message.type() === 'warning') errors.push(message.text());
    });
    page.on('pageerror', (error) => errors.push(String(error)));
    await use(errors);
  },
  elsewhere: async ({ page, gateway }, use) => {
    const elsewhere: string[] = [];
    page.on('request', (request) => {
      if (new URL(request.url()).origin !== gateway.url) elsewhere.push(request.url());
    });
    await use(elsewhere);
  },
});

const operations = (page: Page) => page.getByRole('navigation', { name: 'Operations' });

test('both documents are shown, and nothing comes from elsewhere', async ({ page, gateway, errors, elsewhere }) => {
  const response = await page.goto(`${gateway.url}/docs`);
  const policy = response?.headers()['content-security-policy'] ?? '';
  expect(policy).toContain("default-src 'self'");
  expect(policy).not.toContain('unsafe');
  await expect(operations(page).getByRole('link', { name: /POST \/api\/v1\/messages Keep a message/ })).toBeVisible();
  await expect(operations(page).getByRole('link', { name: /GET \/readyz/ })).toBeVisible();
  // A schema, its limits, and a problem that the route can give.
  const article = page.getByRole('article');
  await expect(article.getByText('maxLength 65536').first()).toBeVisible();
  await article.locator('strong', { hasText: '503' }).click();
  await expect(article.getByText('"type": "https://fpesa.dev/problems/unroutable"')).toBeVisible();
  await page.screenshot({ path: 'test-results/docs-light.png', fullPage: true });

  await page.getByRole('link', { name: 'Messages', exact: true }).click();
  const channels = page.getByRole('navigation', { name: 'Channels' });
  await expect(channels.getByRole('link', { name: /send messages\.\{body_topic\}/ })).toBeVisible();
  await expect(channels.getByRole('link', { name: /messages\/#/ })).toBeVisible();
  await expect(page.getByRole('article').getByText('"specversion": "1.0"')).toBeVisible();
  await channels.getByRole('link', { name: /receive messages\.persist/ }).click();
  await expect(page.getByRole('article')).toContainText('fpesa receives');
  await page.screenshot({ path: 'test-results/docs-messages.png', fullPage: true });

  expect(errors).toEqual([]);
  expect(elsewhere).toEqual([]);
});

test('what is shown can be tried', async ({ page, gateway, errors, elsewhere }) => {
  await page.goto(`${gateway.url}/docs#http/post-message`);
  await page.getByRole('textbox', { name: /^Body/ }).fill('{"text":"tried","big":12345678901234567890}');
  await page.getByRole('button', { name: 'Send POST' }).click();
  const answer = page.getByRole('status');
  await expect(answer).toContainText('202 Accepted');
  const id = /"id": "([0-9a-f-]{36})"/.exec((await page.getByLabel('Answer').textContent()) ?? '')?.[1] ?? '';
  await expect(answer).toContainText(`/api/v1/messages/${id}`);
  await expect(page.getByLabel('For a shell')).toContainText("curl -i -X POST -H 'Content-Type: application/json'");

  await operations(page)
    .getByRole('link', { name: /GET \/api\/v1\/messages Messages, newest/ })
    .click();
  await page.getByRole('textbox', { name: /^limit/ }).fill('1');
  await page.getByRole('combobox', { name: /^count/ }).selectOption('true');
  // History has it a moment after the 202.
  await expect(async () => {
    await page.getByRole('button', { name: 'Send GET' }).click();
    await expect(page.getByLabel('Answer')).toContainText('"total": 1', { timeout: 500 });
  }).toPass();
  await expect(page.getByLabel('Answer')).toContainText('"big": 12345678901234567890');

  await operations(page)
    .getByRole('link', { name: /messages\/\{id\} One message/ })
    .click();
  await page.getByRole('textbox', { name: /^id path/ }).fill(id);
  await page.getByRole('button', { name: 'Send GET' }).click();
  await expect(page.getByLabel('Answer')).toContainText('"text": "tried"');
  expect(errors).toEqual([]);
  expect(elsewhere).toEqual([]);
});

test('a refusal is shown as it came, and the list is searched', async ({ page, gateway }) => {
  await page.goto(`${gateway.url}/docs`);
  await page.getByLabel('Search').fill('keep post');
  await expect(operations(page).getByRole('link')).toHaveCount(1);
  await page.getByRole('textbox', { name: /^Body/ }).fill('{}');
  await page.getByRole('button', { name: 'Send POST' }).click();
  await expect(page.getByRole('status')).toContainText('422');
  await expect(page.getByLabel('Answer')).toContainText('"pointer": "/text"');
});

test('the page fits a phone, in the dark', async ({ page, gateway }) => {
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.goto(`${gateway.url}/docs`);
  await expect(page.getByRole('article')).toBeVisible();
  await page.screenshot({ path: 'test-results/docs-dark.png', fullPage: true });
  await page.setViewportSize({ width: 360, height: 740 });
  for (const hash of ['#http/list-messages', '#messages']) {
    await page.goto(`${gateway.url}/docs${hash}`);
    await expect(page.getByRole('article')).toBeVisible();
    const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
    expect(overflow).toBeLessThanOrEqual(0);
  }
  await page.screenshot({ path: 'test-results/docs-phone.png', fullPage: true });
});
