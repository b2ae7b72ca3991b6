import { expect } from '@playwright/test';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Gateway } from './gateway';
import { open, test as base } from './support';

const ORDER = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  required: ['customer', 'lines', 'payment'],
  additionalProperties: false,
  properties: {
    customer: {
      type: 'object',
      description: 'who gets it',
      required: ['name'],
      properties: {
        name: { type: 'string', minLength: 2 },
        mail: { type: 'string', format: 'email' },
      },
    },
    lines: {
      type: 'array',
      minItems: 1,
      items: {
        type: 'object',
        required: ['sku', 'count'],
        properties: {
          sku: { type: 'string', pattern: '^[A-Z]{3}-[0-9]+$' },
          count: { type: 'integer', minimum: 1, default: 1 },
        },
      },
    },
    payment: {
      oneOf: [
        {
          title: 'Card',
          type: 'object',
          required: ['by', 'card'],
          properties: { by: { const: 'card' }, card: { $ref: '#/$defs/card' } },
        },
        {
          title: 'Invoice',
          type: 'object',
          required: ['by'],
          properties: { by: { const: 'invoice' }, days: { type: 'integer' } },
        },
      ],
    },
    speed: { enum: ['slow', 'fast'], default: 'slow' },
    gift: { type: 'boolean' },
    note: { type: ['string', 'null'] },
    due: { type: 'string', format: 'date-time' },
  },
  $defs: { card: { type: 'string', minLength: 4 } },
};

const test = base.extend<{ gateway: Gateway }>({
  // eslint-disable-next-line no-empty-pattern
  gateway: async ({}, use) => {
    const route = `
  - id: post-order
    summary: Take an order
    method: POST
    path: /shops/{shop}/orders
    params:
      path: { shop: { type: string, pattern: "^[a-z]+$" } }
      query: { dry: { type: boolean, default: false, description: do not ship it } }
    body: { schema: order.json }
    publish: { exchange: amq.topic, key: "messages.orders" }
`;
    const gateway = new Gateway((table) => table.replace('\nqueues:', `${route}\nqueues:`));
    writeFileSync(join(gateway.folder, 'schemas/order.json'), JSON.stringify(ORDER));
    await gateway.start();
    await use(gateway);
    await gateway.stop();
    gateway.remove();
  },
});

test('a form for a whole schema: refused at its fields, in step with its JSON, then kept', async ({
  page,
  gateway,
}) => {
  await open(page, gateway, 'send/post-order');
  const form = page.locator('form.request');
  await expect(form.getByRole('heading')).toContainText('/api/v1/shops/{shop}/orders');
  await form.getByRole('button', { name: 'Send', exact: true }).click();
  await expect(form.getByText('The path needs shop.')).toBeVisible();

  await form.getByLabel('shop', { exact: false }).fill('lisboa');
  await form.getByLabel('name', { exact: false }).first().fill('A');
  await form.getByLabel('sku', { exact: false }).fill('abc');
  await form.getByLabel('Kind of payment').selectOption('Card');
  await form.getByRole('button', { name: 'Send', exact: true }).click();
  // Each error is at its field, and the first of them has the focus.
  await expect(page.locator('.status')).toContainText('422');
  await expect(
    form
      .locator('.field', { has: page.getByLabel('sku', { exact: false }) })
      .last()
      .locator('.error'),
  ).toBeVisible();
  const wrong = form.locator('[aria-invalid="true"]');
  await expect(wrong.first()).toBeFocused();
  expect(await wrong.count()).toBeGreaterThanOrEqual(2);
  await page.screenshot({ path: 'test-results/send-refused.png' });

  await form.getByLabel('name', { exact: false }).first().fill('Ana');
  await form.getByLabel('sku', { exact: false }).fill('TEA-7');
  await form.getByLabel('count', { exact: false }).fill('12345678901234567890');
  await form.getByRole('button', { name: 'Add item' }).click();
  await form.getByLabel('sku', { exact: false }).nth(1).fill('CUP-1');
  await form.getByLabel('Kind of payment').selectOption('Invoice');
  await form.getByLabel('days', { exact: false }).fill('30');
  await form.getByLabel('speed', { exact: false }).selectOption('fast');
  await form.getByLabel('gift', { exact: false }).selectOption('true');
  await form.getByRole('button', { name: 'Now' }).click();
  await form.getByRole('tab', { name: 'JSON' }).click();
  const raw = form.getByLabel('Body', { exact: true });
  const written = JSON.parse(await raw.inputValue()) as Record<string, unknown>;
  expect(Object.keys(written)).toEqual(['customer', 'lines', 'payment', 'speed', 'gift', 'due']);
  expect(written).toMatchObject({
    customer: { name: 'Ana' },
    lines: [{ sku: 'TEA-7' }, { sku: 'CUP-1', count: 1 }],
    payment: { by: 'invoice', days: 30 },
    speed: 'fast',
    gift: true,
  });
  expect(await raw.inputValue()).toContain('12345678901234567890');
  // What is written in the JSON is in the form.
  await raw.fill(
    (await raw.inputValue())
      .replace('"Ana"', '"Ana Maria"')
      .replace(/"by": "invoice",\s+"days": 30/, '"by": "card", "card": "4711"'),
  );
  await form.getByRole('tab', { name: 'Form' }).click();
  await expect(form.getByLabel('name', { exact: false }).first()).toHaveValue('Ana Maria');
  await expect(form.getByRole('textbox', { name: 'card', exact: true })).toHaveValue('4711');

  await form.getByRole('button', { name: 'Send', exact: true }).click();
  await expect(page.locator('.status')).toContainText('202 Accepted');
  await expect(page.locator('.status')).toContainText(' ms');
  await page.getByText(/\d+ headers/).click();
  await expect(page.locator('.headers')).toContainText('x-request-id');
  for (const [language, words] of [
    ['curl', 'curl -i'],
    ['JavaScript', 'await fetch('],
    ['Python', 'urllib.request'],
  ] as const) {
    await page.getByRole('button', { name: language, exact: true }).click();
    await expect(page.locator('.snippets pre')).toContainText(words);
    await expect(page.locator('.snippets pre')).toContainText('/api/v1/shops/lisboa/orders');
  }
  await page.screenshot({ path: 'test-results/send-kept.png', fullPage: true });
  await page.locator('.kept a').click();
  await expect(page.locator('.message.marked .data')).toContainText('12345678901234567890');
});

test('a question is asked, and broken JSON is told before it is sent', async ({ page, gateway }) => {
  await gateway.post({ text: 'one', topic: 'a' });
  await open(page, gateway, 'send/list-messages');
  await page.getByLabel('limit', { exact: false }).fill('0');
  await page.getByRole('button', { name: 'Ask' }).click();
  await expect(page.locator('.params .error')).toBeVisible();
  await page.getByLabel('limit', { exact: false }).fill('5');
  await page.getByRole('button', { name: 'Ask' }).click();
  await expect(page.locator('.status')).toContainText('200');
  await expect(page.locator('.answer .data')).toContainText('"one"');

  await page.goto(`${gateway.url}/#/send/post-message`);
  await page.getByRole('tab', { name: 'JSON' }).click();
  await page.getByLabel('Body', { exact: true }).fill('{"text": nope}');
  await expect(page.locator('#raw-error')).toContainText('JSON');
  await page.getByRole('tab', { name: 'Form' }).click();
  await expect(page.getByText('The body is not JSON now')).toBeVisible();
  await page.getByRole('tab', { name: 'JSON' }).click();
  await page.getByRole('button', { name: 'Send', exact: true }).click();
  await expect(page.getByText('Malformed body').first()).toBeVisible();
});
