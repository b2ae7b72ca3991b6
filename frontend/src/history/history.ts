// History: pages on cursors in both directions, joined with live without a seam: the feed says that there is something
// new, and history itself is asked for it.

import { ref, shallowRef } from 'vue';
import { history, one, problemOf, type PageQuery, type Problem } from '../api';
import type { Event } from '../event';
import { listen } from '../feed/hub';
import { gapFloor, merge, type Entry } from '../feed/merge';
import { topicMatches } from '../topic';

const PAGE = 100;
/** Newer messages are read back in pages of this size, at most this many; else the list stays where it is. */
const NEWER_PAGE = 200;
const NEWER_PAGES = 10;
/** The feed's word is gathered for so long before history is asked. */
const GATHER_MS = 400;

/** What is looked at. */
export interface Query {
  topic: string;
  /** RFC 3339; empty for now. */
  until: string;
  /** One message, and what came before it. */
  id: string;
}

export function useHistory() {
  const entries = shallowRef<Entry[]>([]);
  const loading = ref(false);
  const problem = ref<Problem>();
  /** Whether the list's top is the newest that there is. */
  const joined = ref(false);
  const hasOlder = ref(false);
  /** The message that was asked for is not in history. */
  const missing = ref(false);
  let query: Query = { topic: '', until: '', id: '' };
  let older: string | null = null;
  /** Answers to an earlier question are of no use. */
  let turn = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let again: (() => Promise<void>) | undefined;

  const filter = (): Partial<PageQuery> => (query.topic === '' ? {} : { topic: query.topic });

  async function attempt(work: (current: () => boolean) => Promise<void>): Promise<void> {
    const mine = turn;
    loading.value = true;
    try {
      await work(() => mine === turn);
      if (mine === turn) problem.value = undefined;
    } catch (error) {
      if (mine !== turn) return;
      problem.value = problemOf(error, 'History could not be read');
      again = () => attempt(work);
    } finally {
      if (mine === turn) loading.value = false;
    }
  }

  /** Begins anew with another question. */
  async function show(wanted: Query): Promise<void> {
    turn += 1;
    query = wanted;
    older = null;
    clearTimeout(timer);
    timer = undefined;
    entries.value = [];
    joined.value = false;
    hasOlder.value = false;
    missing.value = false;
    problem.value = undefined;
    await attempt(async (current) => {
      let until = wanted.until;
      if (wanted.id !== '') {
        const found = await one(wanted.id);
        if (!current()) return;
        if (found === undefined) missing.value = true;
        else until = justAfter(found);
      }
      const page = await history({ limit: PAGE, ...filter(), ...(until === '' ? {} : { until }) });
      if (!current()) return;
      entries.value = merge(entries.value, page.events, true);
      older = page.next;
      hasOlder.value = older !== null;
      joined.value = until === '';
    });
  }

  async function loadOlder(): Promise<void> {
    const before = older;
    if (loading.value || before === null) return;
    await attempt(async (current) => {
      const page = await history({ limit: PAGE, before, ...filter() });
      if (!current()) return;
      entries.value = merge(entries.value, page.events, true);
      older = page.next;
      hasOlder.value = older !== null;
    });
  }

  /** What came after the list's top, a page at a time, until the top is the newest. */
  async function loadNewer(): Promise<void> {
    const top = entries.value[0];
    if (loading.value) return;
    if (top === undefined) return show({ ...query, until: '', id: '' });
    await attempt(async (current) => {
      const page = await history({ limit: PAGE, after: top.id, ...filter() });
      if (!current()) return;
      entries.value = merge(entries.value, page.events, true);
      // A page of large messages is shorter, and leads on.
      if (page.next === null && page.events.length < PAGE) {
        joined.value = true;
        await catchUp(current);
      }
    });
  }

  /** Reads from the newest down to what is known, with some overlap. */
  async function catchUp(current: () => boolean): Promise<void> {
    const floor = gapFloor(entries.value) ?? '';
    let before: string | undefined;
    const found: Event[] = [];
    for (let pages = 0; pages < NEWER_PAGES; pages += 1) {
      const page = await history({ limit: NEWER_PAGE, ...filter(), ...(before === undefined ? {} : { before }) });
      if (!current()) return;
      found.push(...page.events);
      const oldest = page.events.at(-1);
      if (page.next === null || oldest === undefined || oldest.time < floor) {
        entries.value = merge(entries.value, found, true);
        return;
      }
      before = page.next;
    }
    // Too much to read for a reader who looks elsewhere: the list stays without a hole, and says that there is more.
    joined.value = false;
  }

  const ask = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      const mine = turn;
      if (joined.value) catchUp(() => mine === turn).catch(ask);
    }, GATHER_MS);
  };
  const stop = listen({
    subscribed: ask,
    event: (event) => {
      if (joined.value && (query.topic === '' || topicMatches(query.topic, event.subject))) ask();
    },
  });

  return {
    entries,
    loading,
    problem,
    joined,
    hasOlder,
    missing,
    show,
    loadOlder,
    loadNewer,
    retry: (): void => void again?.(),
    close(): void {
      turn += 1;
      clearTimeout(timer);
      stop();
    },
  };
}

/** One microsecond after an event, so that a page that ends there begins with it. */
export function justAfter(event: Event): string {
  const parts = /^(.*\.)(\d{6})Z$/.exec(event.time);
  if (parts === null) return event.time;
  const next = Number(parts[2]) + 1;
  if (next < 1_000_000) return `${parts[1] ?? ''}${String(next).padStart(6, '0')}Z`;
  return new Date(new Date(event.time).getTime() + 1).toISOString().replace('Z', '000Z');
}
