import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Event } from '../src/event';
import { gapFloor, merge, newestFirst, type Entry } from '../src/feed/merge';

const event = (n: number): Event => ({
  // Some share a time, so that the id has to decide.
  id: `0193f1c2-7d3a-7c3e-9d4e-${String(n).padStart(12, '0')}`,
  time: new Date(1_800_000_000_000 + Math.floor(n / 3) * 1000).toISOString().replace('Z', '000Z'),
  subject: 'messages/general',
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

test('a cut in a numbered stream is closed by reading down to the floor', () => {
  fc.assert(
    fc.property(fc.nat(200), fc.nat(200), fc.integer({ min: 1, max: 40 }), (first, missed, pageSize) => {
      const all = Array.from({ length: first + missed + 1 }, (_, n) => event(n)).sort(newestFirst);
      // The first part was seen live and is in history; the rest passed while the connection was cut.
      let entries = merge([], all.slice(missed), true);
      const floor = gapFloor(entries);
      for (let at = 0; at < all.length; at += pageSize) {
        const page = all.slice(at, at + pageSize);
        entries = merge(entries, page, true);
        const oldest = page.at(-1);
        if (floor !== undefined && oldest !== undefined && oldest.time < floor) break;
      }
      expect(entries.map((entry) => entry.id)).toEqual(all.map((one) => one.id));
    }),
  );
});
