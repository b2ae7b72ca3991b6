// `/pulse.json`: the last quarter of an hour, a column per series. Behind a proxy each answer may be another gateway's: they
// are added up.

export interface PulseDocument {
  instance: string;
  /** Seconds from one sample to the next. */
  every: number;
  /** End of each interval, in seconds since 1970. */
  time: number[];
  requests: Record<string, number[]>;
  publishes: Record<string, number[]>;
  /** Latency of calls: upper bounds in ms, and per interval a count for each and one more; empty where there were none. */
  calls: { bounds_ms: number[]; counts: number[][] };
  sessions: (number | null)[];
}

export interface Series {
  time: number[];
  /** Per second. */
  requests: Record<string, number[]>;
  publishes: Record<string, number[]>;
  /** Milliseconds; null where nothing was called. */
  latency: { p50: (number | null)[]; p95: (number | null)[]; p99: (number | null)[] };
  sessions: (number | null)[];
}

/** The documents of several gateways as one; the times are those that any of them has. */
export function combined(documents: readonly PulseDocument[]): Series {
  const every = documents[0]?.every ?? 5;
  const time = [...new Set(documents.flatMap((document) => document.time))].sort((a, b) => a - b).slice(-180);
  const row = new Map(time.map((at, n) => [at, n]));
  const empty = (): number[] => time.map(() => 0);
  const requests: Record<string, number[]> = {};
  const publishes: Record<string, number[]> = {};
  const sessions: (number | null)[] = time.map(() => null);
  const bounds = documents[0]?.calls.bounds_ms ?? [];
  const counts = time.map(() => new Array<number>(bounds.length + 1).fill(0));
  for (const document of documents) {
    for (const [n, at] of document.time.entries()) {
      const to = row.get(at);
      if (to === undefined) continue;
      for (const [from, into] of [
        [document.requests, requests],
        [document.publishes, publishes],
      ] as const) {
        for (const [name, column] of Object.entries(from)) {
          const sum = (into[name] ??= empty());
          sum[to] = (sum[to] ?? 0) + (column[n] ?? 0) / every;
        }
      }
      const live = document.sessions[n];
      if (typeof live === 'number') sessions[to] = (sessions[to] ?? 0) + live;
      const into = counts[to];
      for (const [bucket, count] of (document.calls.counts[n] ?? []).entries()) {
        if (into !== undefined) into[bucket] = (into[bucket] ?? 0) + count;
      }
    }
  }
  const at = (share: number): (number | null)[] => counts.map((buckets) => quantile(bounds, buckets, share));
  return { time, requests, publishes, latency: { p50: at(0.5), p95: at(0.95), p99: at(0.99) }, sessions };
}

/** A share's value out of a histogram, straight between its bucket's bounds; null of an empty one. */
export function quantile(bounds: readonly number[], counts: readonly number[], share: number): number | null {
  const total = counts.reduce((sum, count) => sum + count, 0);
  if (total === 0) return null;
  let left = total * share;
  for (const [n, count] of counts.entries()) {
    if (left <= count && count > 0) {
      const from = n === 0 ? 0 : (bounds[n - 1] ?? 0);
      const to = bounds[n] ?? from;
      return from + ((to - from) * left) / count;
    }
    left -= count;
  }
  return bounds.at(-1) ?? null;
}
