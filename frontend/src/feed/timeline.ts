// Feed and history joined for the page: subscribe first, then read history down to what was known, merge by id, and say
// plainly when the gap could not be closed.

import { computed, onScopeDispose, ref, shallowRef } from 'vue';
import { history, Refused, type Page, type Problem } from '../api';
import type { Event } from '../event';
import { connect, type State } from './connection';
import { gapFloor, merge, type Entry } from './merge';

const PAGE = 50;
/** A gap is read in pages of this size, at most this many. */
const GAP_PAGE = 200;
const GAP_PAGES = 20;
/** What came live is looked for in history after this long. */
const CONFIRM_AFTER_MS = 600;
const CONFIRM_TRIES = 5;

export function useTimeline() {
  const entries = shallowRef<Entry[]>([]);
  const state = ref<State>('connecting');
  const loading = ref(true);
  const problem = ref<Problem>();
  const gap = ref(false);
  const shown = ref(PAGE);
  const older = ref<string | null>();
  let tries = 0;
  let timer: ReturnType<typeof setTimeout> | undefined;
  let buffered: Event[] = [];
  let flushing = false;

  /** Live events are merged once a frame, however many come. */
  const flush = (): void => {
    flushing = false;
    const arrived = buffered;
    buffered = [];
    const before = entries.value.length;
    entries.value = merge(entries.value, arrived, false);
    // What is on the page stays on it while new messages push from above.
    if (shown.value > PAGE) shown.value += entries.value.length - before;
  };

  /** Merges a page; where it ends at the oldest that is known, older ones follow from there. */
  const take = (page: Page): void => {
    entries.value = merge(entries.value, page.events, true);
    const last = page.events.at(-1);
    if (last === undefined || last.id === entries.value.at(-1)?.id) older.value = page.next;
  };

  const attempt = async (work: () => Promise<void>): Promise<void> => {
    loading.value = true;
    try {
      await work();
      problem.value = undefined;
    } catch (error) {
      problem.value =
        error instanceof Refused
          ? error.problem
          : { status: 0, title: 'Failed', detail: 'History could not be read.', errors: [] };
    } finally {
      loading.value = false;
    }
  };

  /** Reads down to what history was known to have; on the first time, one page. */
  const closeGap = (): Promise<void> =>
    attempt(async () => {
      const floor = gapFloor(entries.value);
      if (floor === undefined) {
        take(await history(PAGE));
        return;
      }
      let before: string | undefined;
      for (let pages = 0; pages < GAP_PAGES; pages += 1) {
        const page = await history(GAP_PAGE, before);
        take(page);
        const oldest = page.events.at(-1);
        if (page.next === null || oldest === undefined || oldest.time < floor) {
          gap.value = false;
          return;
        }
        before = page.next;
      }
      gap.value = true;
    });

  /** Looks in history for what so far was only seen live. */
  const confirm = async (): Promise<void> => {
    const waiting = entries.value.filter((entry) => !entry.kept);
    const oldest = waiting.at(-1);
    if (oldest === undefined) return;
    try {
      let before: string | undefined;
      for (let pages = 0; pages < CONFIRM_TRIES; pages += 1) {
        const page = await history(GAP_PAGE, before);
        take(page);
        const last = page.events.at(-1);
        if (page.next === null || last === undefined || last.time < oldest.time) break;
        before = page.next;
      }
    } catch {
      // The next try, or the next connection, will tell.
    }
    tries += 1;
    if (entries.value.some((entry) => !entry.kept) && tries < CONFIRM_TRIES) confirmSoon();
  };

  const confirmSoon = (): void => {
    timer ??= setTimeout(() => {
      timer = undefined;
      void confirm();
    }, CONFIRM_AFTER_MS);
  };

  const stop = connect({
    state: (now) => {
      state.value = now;
    },
    subscribed: () => void closeGap(),
    event: (event) => {
      buffered.push(event);
      tries = 0;
      confirmSoon();
      if (!flushing) {
        flushing = true;
        // A hidden page paints no frames, and still must not fall behind.
        if (document.hidden) queueMicrotask(flush);
        else requestAnimationFrame(flush);
      }
    },
  });
  // History does not wait for the feed: without a connection there is still something to read.
  void closeGap();
  onScopeDispose(() => {
    stop();
    clearTimeout(timer);
  });

  const loadOlder = async (): Promise<void> => {
    if (shown.value < entries.value.length) {
      shown.value += PAGE;
      return;
    }
    await attempt(async () => {
      take(await history(PAGE, older.value ?? undefined));
      shown.value = entries.value.length;
    });
  };

  return {
    state,
    loading,
    problem,
    gap,
    visible: computed(() => entries.value.slice(0, shown.value)),
    total: computed(() => entries.value.length),
    hasOlder: computed(() => entries.value.length > 0 && (shown.value < entries.value.length || older.value !== null)),
    loadOlder,
    closeGap,
  };
}
