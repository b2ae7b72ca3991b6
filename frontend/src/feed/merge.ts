// Feed and history become one list: newest first, each event once. Pure, so that every order of arrival can be tried.

import type { Event } from '../event';

export interface Entry extends Event {
  /** Whether history has it: until then it was only seen passing by. */
  kept: boolean;
}

/** The order of history: by time, then by id; newest first. */
export function newestFirst(a: Event, b: Event): number {
  if (a.time !== b.time) return a.time < b.time ? 1 : -1;
  if (a.id !== b.id) return a.id < b.id ? 1 : -1;
  return 0;
}

/** The list with these events in it. What history has once is kept for good. */
export function merge(entries: readonly Entry[], events: readonly Event[], kept: boolean): Entry[] {
  const byId = new Map(entries.map((entry) => [entry.id, entry]));
  let changed = false;
  for (const event of events) {
    const known = byId.get(event.id);
    if (known === undefined) {
      byId.set(event.id, { ...event, kept });
      changed = true;
    } else if (kept && !known.kept) {
      // History's word counts: it has the event as it was first kept.
      byId.set(event.id, { ...event, kept: true });
      changed = true;
    }
  }
  return changed ? [...byId.values()].sort(newestFirst) : [...entries];
}

/** How far history is read again behind the last event that it was known to have: what came late is found by it. */
export const OVERLAP_MS = 5_000;

/** The time down to which history must be read to close a gap; undefined when nothing is known yet. */
export function gapFloor(entries: readonly Entry[]): string | undefined {
  const newest = entries.find((entry) => entry.kept);
  if (newest === undefined) return undefined;
  const floor = new Date(newest.time).getTime() - OVERLAP_MS;
  return Number.isNaN(floor) ? newest.time : new Date(floor).toISOString().replace('Z', '000Z');
}
