// What the specs share: a gateway of their own, what the console said, and a feed that can be cut and added to.

import AxeBuilder from '@axe-core/playwright';
import { expect, test as base, type Page, type WebSocketRoute } from '@playwright/test';
import { randomUUID } from 'node:crypto';
import { Gateway } from './gateway';

export const test = base.extend<{ gateway: Gateway; errors: string[] }>({
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

export async function open(page: Page, gateway: Gateway, view = 'live'): Promise<void> {
  await page.goto(`${gateway.url}/#/${view}`);
  await expect(page.locator('.state')).toHaveText('Live');
}

/** The list's rows as they are written, from its top. */
export const texts = (page: Page): Promise<string[]> => page.locator('.messages .text').allTextContents();

/** Every row of a list that is longer than the window, newest first. */
export async function allTexts(page: Page): Promise<string[]> {
  const found = new Map<number, string>();
  const scroller = page.locator('.scroller');
  // Rows follow a scroll with the next frame: what is read before that stands elsewhere.
  const followed = (): Promise<unknown> =>
    page.evaluate(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));
  await scroller.evaluate((box) => box.scrollTo(0, 0));
  await followed();
  for (;;) {
    const rows = await page
      .locator('.messages > li')
      .evaluateAll((all) =>
        all.map(
          (row) => [Number(row.getAttribute('aria-posinset')), row.querySelector('.text')?.textContent ?? ''] as const,
        ),
      );
    for (const [at, text] of rows) found.set(at, text);
    const atEnd = await scroller.evaluate((box) => {
      const end = box.scrollTop + box.clientHeight >= box.scrollHeight - 2;
      box.scrollBy(0, box.clientHeight * 0.8);
      return end;
    });
    await followed();
    if (atEnd) return [...found].sort(([a], [b]) => a - b).map(([, text]) => text);
  }
}

/** No issue of axe-core's that is serious or worse. */
export async function accessible(page: Page, what: string): Promise<void> {
  // What still moves has no colours of its own yet.
  await page.waitForFunction(() => document.getAnimations().every((one) => one.playState !== 'running'));
  const { violations } = await new AxeBuilder({ page }).analyze();
  const serious = violations.filter(({ impact }) => impact === 'serious' || impact === 'critical');
  const told = serious.map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.html.slice(0, 160)).join(' | ')}`);
  expect(told, what).toEqual([]);
}

/** Stands between the page and the feed. */
export class Feed {
  private readonly open = new Set<WebSocketRoute>();
  /** Microseconds of the last one: each is later than the one before. */
  private last = 0;

  static async between(page: Page): Promise<Feed> {
    const feed = new Feed();
    await page.routeWebSocket(/\/mqtt$/, (socket) => {
      socket.connectToServer();
      feed.open.add(socket);
      socket.onClose(() => feed.open.delete(socket));
    });
    return feed;
  }

  /** The connection breaks, as far as the page can tell. */
  async cut(): Promise<void> {
    await Promise.all([...this.open].map((socket) => socket.close({ code: 4000 })));
    this.open.clear();
  }

  /** Carries events that nobody kept, as a broker's feed does when a full queue refused them. */
  carry(texts: string | string[], secondsAgo = 0): void {
    const packets = [texts].flat().map((text) => {
      const now = (Date.now() - secondsAgo * 1_000) * 1_000;
      this.last = secondsAgo > 0 ? now : Math.max(this.last + 1, now);
      const at = new Date(Math.floor(this.last / 1_000)).toISOString();
      const event = {
        specversion: '1.0',
        id: randomUUID(),
        source: '/post-message',
        type: 'post-message',
        subject: 'messages/general',
        time: at.replace('Z', `${String(this.last % 1_000).padStart(3, '0')}Z`),
        data: { text },
      };
      return publish('messages/general', JSON.stringify(event));
    });
    for (const socket of this.open) socket.send(Buffer.concat(packets));
  }
}

/** A PUBLISH of QoS 0 (MQTT 3.1.1, section 3.3). */
function publish(topic: string, payload: string): Buffer {
  const name = Buffer.from(topic);
  const body = Buffer.concat([Buffer.from([name.length >> 8, name.length & 0xff]), name, Buffer.from(payload)]);
  const length: number[] = [];
  let left = body.length;
  do {
    length.push((left % 128) + (left >= 128 ? 128 : 0));
    left = Math.floor(left / 128);
  } while (left > 0);
  return Buffer.concat([Buffer.from([0x30, ...length]), body]);
}
