import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Event } from '../src/event';
import {
  confirmFloor,
  FADES_AFTER_MS,
  gapFloor,
  judge,
  merge,
  newestFirst,
  PATIENCE_MS,
  type Entry,
} from '../src/feed/merge';

const START = 1_800_000_000_000;
const event = (n: number): Event => ({
  // Some share a time, so that the id has to decide.
  id: `0193f1c2-7d3a-7c3e-9d4e-${String(n).padStart(12, '0')}`,
  time: new Date(START + Math.floor(n / 3) * 1000).toISOString().replace('Z', '000Z'),
  subject: 'messages/general',
  source: '/post-message',
  type: 't',
  data: String(n),
});

/** What a page does over any life: pieces of the feed and pages of history come in any order, some twice. */
const arrivals = fc.array(fc.record({ numbers: fc.array(fc.nat(60), { maxLength: 20 }), kept: fc.boolean() }), {
  maxLength: 20,
});

test('each event is there once, in order, whatever comes in whatever order', () => {
  fc.assert(
    fc.property(arrivals, (steps) => {
      let entries: Entry[] = [];
      const seen = new Set<string>();
      const kept = new Set<string>();
      for (const step of steps) {
        const events = step.numbers.map(event);
        entries = merge(entries, events, step.kept);
        for (const { id } of events) {
          seen.add(id);
          if (step.kept) kept.add(id);
        }
      }
      expect(new Set(entries.map((entry) => entry.id))).toEqual(seen);
      expect(entries.length).toBe(seen.size);
      expect([...entries].sort(newestFirst)).toEqual(entries);
      expect(new Set(entries.filter((entry) => entry.kept).map((entry) => entry.id))).toEqual(kept);
    }),
  );
});

/** A stream of events, and what the feed makes of it: each is delivered late, twice, or not at all while it is cut. */
const stream = fc.array(
  fc.record({
    /** Positions that its delivery comes later than its turn. */
    late: fc.nat(6),
    twice: fc.boolean(),
    /** The connection is cut after it, and back after so many more. */
    cut: fc.option(fc.integer({ min: 1, max: 25 }), { freq: 8 }),
  }),
  { minLength: 1, maxLength: 150 },
);

test('cuts, reorders and duplicates: after the last gap is closed none is missing and none is twice', () => {
  fc.assert(
    fc.property(stream, fc.integer({ min: 1, max: 40 }), (plan, pageSize) => {
      const history: Event[] = [];
      let entries: Entry[] = [];
      let underWay: { at: number; event: Event }[] = [];
      let awayUntil = -1;
      let connected = true;

      const deliver = (now: number): void => {
        const due = underWay.filter(({ at }) => at <= now);
        underWay = underWay.filter(({ at }) => at > now);
        entries = merge(entries, due.map((one) => one.event).reverse(), false, now);
      };
      /** Subscribed again: what still comes is buffered while history is read down to what was known. */
      const close = (now: number): void => {
        const floor = gapFloor(entries);
        const all = [...history].sort(newestFirst);
        for (let from = 0; from < all.length; from += pageSize) {
          const page = all.slice(from, from + pageSize);
          entries = merge(entries, page, true);
          // The feed goes on between two pages.
          deliver(now + 1 + from / pageSize);
          const oldest = page.at(-1);
          if (floor !== undefined && oldest !== undefined && oldest.time < floor) return;
        }
      };

      close(0);
      for (const [now, { late, twice, cut }] of plan.entries()) {
        const next = event(now);
        history.push(next);
        if (!connected && now >= awayUntil) {
          connected = true;
          close(now);
        }
        if (connected) {
          underWay.push({ at: now + late, event: next });
          if (twice) underWay.push({ at: now + late + 2, event: next });
          deliver(now);
        }
        if (connected && cut !== null) {
          connected = false;
          awayUntil = now + cut;
          underWay = [];
        }
      }
      close(plan.length);
      expect(entries.map((entry) => entry.id)).toEqual([...history].sort(newestFirst).map((one) => one.id));
      expect(entries.every((entry) => entry.kept)).toBe(true);
    }),
    { numRuns: 300 },
  );
});

test('an event that history passes over is lost, fades, and is back when history has it after all', () => {
  const [first, refused, last] = [event(0), event(3), event(18)];
  let entries = merge(merge([], [first], true), [refused], false, START);
  entries = judge(entries, '', START + 1_000);
  expect(entries.map((entry) => entry.lost === true)).toEqual([false, false]);
  // Something newer by five seconds is kept.
  entries = merge(entries, [last], true);
  entries = judge(entries, '', START + 6_000);
  expect(entries.map((entry) => entry.lost === true)).toEqual([false, true, false]);
  // It came late, not never.
  expect(merge(entries, [refused], true)[1]).toMatchObject({ id: refused.id, kept: true });
  expect(merge(entries, [refused], true)[1]?.lost).toBeUndefined();
  entries = judge(entries, '', START + FADES_AFTER_MS);
  expect(entries.map((entry) => entry.id)).toEqual([last.id, first.id]);
});

test('what was not looked for is not lost, nor what only waits for a worker', () => {
  const seen = merge(merge([], [event(30)], true), [event(0)], false, START);
  expect(judge(seen, event(15).time, START + 2 * PATIENCE_MS)).toEqual(seen);
  // Nothing newer is kept: it is marked after a while, and stays.
  const waiting = merge([], [event(0)], false, START);
  expect(judge(waiting, '', START + PATIENCE_MS - 1)).toEqual(waiting);
  const marked = judge(waiting, '', START + PATIENCE_MS);
  expect(marked[0]?.lost).toBe(true);
  expect(judge(marked, '', START + 10 * FADES_AFTER_MS)).toEqual(marked);
});

test('a feed that drops messages while it is up: history tells them all, whatever was dropped', () => {
  // What a broker does with a browser that reads slowly: of each burst the oldest that wait are dropped, and it says nothing.
  const bursts = fc.array(fc.record({ size: fc.integer({ min: 1, max: 40 }), dropped: fc.nat(39) }), {
    minLength: 1,
    maxLength: 20,
  });
  fc.assert(
    fc.property(bursts, (plan) => {
      // The page has read history once, at its start.
      const history = [event(0)];
      let entries = merge([], history, true);
      let coveredTo = history[0]?.time;
      for (const { size, dropped } of plan) {
        const burst = Array.from({ length: size }, (_, n) => event(history.length + n));
        history.push(...burst);
        // The newest one always comes.
        entries = merge(entries, burst.slice(Math.min(dropped, size - 1)), false);
        const oldest = entries.filter((entry) => !entry.kept).at(-1);
        const floor = confirmFloor(oldest?.time ?? '', coveredTo);
        entries = merge(
          entries,
          history.filter(({ time }) => time >= floor),
          true,
        );
        coveredTo = history.at(-1)?.time;
        expect(entries.map(({ id }) => id)).toEqual([...history].sort(newestFirst).map(({ id }) => id));
      }
    }),
  );
});
