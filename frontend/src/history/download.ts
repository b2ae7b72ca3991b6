// What is filtered, as a file of NDJSON: one event a line, oldest first, as they are in history.

import { history } from '../api';

const PAGE = 1_000;

/** Reads all pages; `progress` hears how many lines there are, and says whether to go on. Undefined when it said no. */
export async function collect(
  filter: { topic: string; until: string },
  progress: (lines: number) => boolean,
): Promise<Blob | undefined> {
  const parts: string[] = [];
  let lines = 0;
  let before: string | undefined;
  for (;;) {
    const page = await history({
      limit: PAGE,
      topic: filter.topic,
      ...(before === undefined ? (filter.until === '' ? {} : { until: filter.until }) : { before }),
    });
    // Pages come newest first.
    parts.push(
      page.texts
        .toReversed()
        .map((text) => `${text}\n`)
        .join(''),
    );
    lines += page.texts.length;
    if (!progress(lines)) return undefined;
    if (page.next === null) return new Blob(parts.toReversed(), { type: 'application/x-ndjson' });
    before = page.next;
  }
}

/** Gives a file to the browser to save. */
export function save(file: Blob, name: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(file);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
