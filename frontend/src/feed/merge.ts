// Feed and history become one list: newest first, each event once. Pure, so that every order of arrival can be tried.

import type { Event } from '../event';

export interface Entry extends Event {
  /** Whether history has it: until then it was only seen passing by. */
  kept: boolean;
  /** When the page saw it first, in milliseconds since 1970; for what history has from the start 0. */
  seen: number;
  /** History was read past it and does not have it: refused by a queue that was full, though the feed carried it. */
  lost?: boolean;
}

/** The order of history: by time, then by id; newest first. */
export function newestFirst(a: Event, b: Event): number {
  if (a.time !== b.time) return a.time < b.time ? 1 : -1;
  if (a.id !== b.id) return a.id < b.id ? 1 : -1;
  return 0;
}

/** The list with these events in it. What history has once is kept for good. Linear in the list, so that it can be done
 *  many times a second. */
export function merge(entries: readonly Entry[], events: readonly Event[], kept: boolean, seen = 0): Entry[] {
  const wanted = new Map<string, Event>();
  // The first of a batch counts, as the first of all does.
  for (const event of events) if (!wanted.has(event.id)) wanted.set(event.id, event);
  const out: Entry[] = [];
  const moved: Entry[] = [];
  for (const entry of entries) {
    const event = wanted.get(entry.id);
    if (event === undefined) {
      out.push(entry);
      continue;
    }
    wanted.delete(entry.id);
    if (!kept || entry.kept) out.push(entry);
    // History's word counts: it has the event as it was first kept, perhaps at another time.
    else moved.push({ ...event, kept: true, seen: entry.seen });
  }
  for (const event of wanted.values()) moved.push({ ...event, kept, seen });
  if (moved.length === 0) return out;
  moved.sort(newestFirst);
  const both: Entry[] = [];
  let next = 0;
  for (const entry of out) {
    for (let one = moved[next]; one !== undefined && newestFirst(one, entry) < 0; one = moved[next]) {
      both.push(one);
      next += 1;
    }
    both.push(entry);
  }
  return both.concat(moved.slice(next));
}

/** How far history is read again behind the last event that it was known to have: what came late is found by it. */
export const OVERLAP_MS = 5_000;
/** The same while the feed is up, where little can be late and it is read often. */
export const LIVE_OVERLAP_MS = 2_000;

function earlier(time: string, milliseconds: number): string {
  const floor = new Date(time).getTime() - milliseconds;
  return Number.isNaN(floor) ? time : new Date(floor).toISOString().replace('Z', '000Z');
}

/** The time down to which history must be read to close a gap; undefined when nothing is known yet. */
export function gapFloor(entries: readonly Entry[]): string | undefined {
  const newest = entries.find((entry) => entry.kept);
  return newest === undefined ? undefined : earlier(newest.time, OVERLAP_MS);
}

/**
 * The time down to which history must be read so that nothing is missing though the feed lost messages: down to where it was
 * read before, and to the oldest event that still waits for its word. A broker drops the oldest messages of a browser that
 * reads more slowly than they come, and does not say so.
 */
export function confirmFloor(oldestWaiting: string, coveredTo: string | undefined): string {
  if (coveredTo === undefined) return oldestWaiting;
  const covered = earlier(coveredTo, LIVE_OVERLAP_MS);
  return covered < oldestWaiting ? covered : oldestWaiting;
}

/** An event that history does not have this long after the page saw it is lost, though nothing newer was kept. */
export const PATIENCE_MS = 20_000;
/** History keeps in batches, not in order: so much newer must be what it has, to say that it passed an event over. */
export const PASSED_MS = 3_000;
/** A lost one is shown for so long, and then leaves the list. */
export const FADES_AFTER_MS = 30_000;

/**
 * What is lost, and what has faded. Asked after a successful read of history that reached down to `covered`: above it, what
 * history did not tell it does not have.
 */
export function judge(entries: readonly Entry[], covered: string, now: number): Entry[] {
  const newest = entries.find((entry) => entry.kept);
  const kept = newest === undefined ? -Infinity : new Date(newest.time).getTime();
  let changed = false;
  const judged = entries.flatMap((entry): Entry[] => {
    if (entry.kept || entry.time < covered) return [entry];
    const passed = kept - new Date(entry.time).getTime() >= PASSED_MS;
    const age = now - entry.seen;
    if (passed && entry.lost === true && age >= FADES_AFTER_MS) {
      changed = true;
      return [];
    }
    if (entry.lost !== true && (age >= PATIENCE_MS || (passed && age >= PASSED_MS))) {
      changed = true;
      return [{ ...entry, lost: true }];
    }
    return [entry];
  });
  return changed ? judged : [...entries];
}
