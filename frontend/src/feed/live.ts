// Live: feed and history joined into a bounded list. Subscribe first, then read history down to what was known, merge by
// id, and say plainly when the gap could not be closed.

import { computed, ref, shallowRef, watch } from 'vue';
import { history, problemOf, type Page, type Problem } from '../api';
import type { Event } from '../event';
import { topicMatches } from '../topic';
import { listen } from './hub';
import { confirmFloor, gapFloor, judge, merge, type Entry } from './merge';

/** Most messages of the list; older ones leave it and are counted. */
export const MOST = 5_000;
const FIRST_PAGE = 100;
const GAP_PAGE = 500;
/** Messages are merged once a frame, and no more often than this. */
const FLUSH_MS = 80;
/** What came live is looked for in history after this long; after longer ones while it does not come. */
const CONFIRM_MS = [500, 800, 1_500, 3_000, 5_000];
const RETRY_MS = 4_000;

const entries = shallowRef<Entry[]>([]);
/** What is shown while it is paused: nothing moves under the reader's eyes. */
const frozen = shallowRef<Entry[]>();
const loading = ref(true);
const problem = ref<Problem>();
/** Messages may be missing: history could not be read since the feed was away. */
const gap = ref(false);
/** Messages that left the list because it is full. */
const dropped = ref(0);
/** Messages that came since it is paused, and fit the filter. */
const fresh = ref(0);
const topic = ref('');
const text = ref('');
/** Messages of the last second. */
const rate = ref(0);

let buffered: Event[] = [];
let flushing = false;
let lastFlush = 0;
let confirmTimer: ReturnType<typeof setTimeout> | undefined;
let retryTimer: ReturnType<typeof setTimeout> | undefined;
let tries = 0;
let closing: Promise<void> | undefined;
/** History was read without a gap up to the event of this time. */
let coveredTo: string | undefined;

const fitsFilter = (event: Event): boolean =>
  (topic.value === '' || topicMatches(topic.value, event.subject)) &&
  (text.value === '' || haystack(event).includes(text.value.toLowerCase()));
/** What is searched, made once for each. */
const haystacks = new WeakMap<Event, string>();
function haystack(event: Event): string {
  let text = haystacks.get(event);
  if (text === undefined) {
    text = `${event.subject} ${event.id} ${event.data ?? ''}`.toLowerCase();
    haystacks.set(event, text);
  }
  return text;
}

function put(list: Entry[]): void {
  if (list.length > MOST) {
    dropped.value += list.length - MOST;
    list = list.slice(0, MOST);
  }
  entries.value = list;
}

function flush(): void {
  flushing = false;
  lastFlush = performance.now();
  const arrived = buffered;
  buffered = [];
  if (frozen.value !== undefined) fresh.value += arrived.filter(fitsFilter).length;
  put(merge(entries.value, arrived, false, Date.now()));
  tries = 0;
  confirmSoon();
}

function arrive(event: Event): void {
  buffered.push(event);
  count += 1;
  if (flushing) return;
  flushing = true;
  const wait = Math.max(0, FLUSH_MS - (performance.now() - lastFlush));
  // A hidden page paints no frames, and still must not fall behind.
  if (wait > 0 || document.hidden) setTimeout(flush, wait);
  else requestAnimationFrame(flush);
}

let count = 0;
setInterval(() => {
  rate.value = count;
  count = 0;
}, 1_000);

function take(page: Page): void {
  put(merge(entries.value, page.events, true));
  if (frozen.value !== undefined) {
    const told = new Set(page.events.map((event) => event.id));
    frozen.value = frozen.value.map((entry) => (told.has(entry.id) && !entry.kept ? { ...entry, kept: true } : entry));
  }
}

/** What one reading of history covers: every event between the two times, as it was then. */
interface Covered {
  newest: string | undefined;
  oldest: string;
}

/** Reads history from the newest down to `floor`, or until the list is full. */
async function readDown(floor: string, limit: number): Promise<Covered> {
  let before: string | undefined;
  let newest: string | undefined;
  let read = 0;
  for (;;) {
    const page = await history({ limit, ...(before === undefined ? {} : { before }) });
    take(page);
    read += page.events.length;
    newest ??= page.events[0]?.time;
    const oldest = page.events.at(-1);
    if (page.next === null || oldest === undefined) return { newest, oldest: '' };
    if (oldest.time < floor || read >= MOST) return { newest, oldest: oldest.time };
    before = page.next;
  }
}

/** Closes the gap behind the feed's subscription; the first time it reads one page. Once more when it fails. */
export function closeGap(): Promise<void> {
  clearTimeout(retryTimer);
  closing ??= (async () => {
    loading.value = true;
    try {
      const floor = gapFloor(entries.value);
      if (floor === undefined) {
        const page = await history({ limit: FIRST_PAGE });
        take(page);
        coveredTo = page.events[0]?.time;
      } else {
        coveredTo = (await readDown(floor, GAP_PAGE)).newest;
      }
      problem.value = undefined;
      gap.value = false;
    } catch (error) {
      problem.value = problemOf(error, 'History could not be read');
      gap.value = entries.value.length > 0;
      retryTimer = setTimeout(() => void closeGap(), RETRY_MS);
    } finally {
      loading.value = false;
      closing = undefined;
    }
  })();
  return closing;
}

/** Looks in history for what so far was only seen live, and for what the feed lost on the way. */
async function confirm(): Promise<void> {
  const waiting = entries.value.filter((entry) => !entry.kept);
  const oldest = waiting.at(-1);
  if (oldest === undefined) return;
  try {
    const covered = await readDown(confirmFloor(oldest.time, coveredTo), Math.min(1_000, waiting.length + 20));
    if (!gap.value) coveredTo = covered.newest;
    entries.value = judge(entries.value, covered.oldest, Date.now());
  } catch {
    // The next try, or the next connection, will tell.
  }
  tries += 1;
  if (entries.value.some((entry) => !entry.kept)) confirmSoon();
}

function confirmSoon(): void {
  const pause = CONFIRM_MS[Math.min(tries, CONFIRM_MS.length - 1)];
  confirmTimer ??= setTimeout(() => {
    void confirm().finally(() => {
      confirmTimer = undefined;
      if (entries.value.some((entry) => !entry.kept)) confirmSoon();
    });
  }, pause);
}

let begun = false;
function begin(): void {
  if (begun) return;
  begun = true;
  listen({ subscribed: () => void closeGap(), event: arrive });
  // History does not wait for the feed: without a connection there is still something to read.
  void closeGap();
}

watch([topic, text], () => {
  fresh.value = 0;
});

/** The live list; it goes on whichever view is open. */
export function useLive() {
  begin();
  return {
    loading,
    problem,
    gap,
    dropped,
    fresh,
    rate,
    topic,
    text,
    total: computed(() => entries.value.length),
    visible: computed(() => {
      const all = frozen.value ?? entries.value;
      return topic.value === '' && text.value === '' ? all : all.filter(fitsFilter);
    }),
    paused: computed(() => frozen.value !== undefined),
    pause(): void {
      frozen.value ??= entries.value;
    },
    resume(): void {
      frozen.value = undefined;
      fresh.value = 0;
    },
    closeGap,
  };
}
