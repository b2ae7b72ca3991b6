// `/table.json`: the table in force, as the gateway tells it.

export interface TableDocument {
  generation: number;
  reload: Reload;
  bus: 'up' | 'blocked' | 'down';
  routes: RouteEntry[];
  exchanges: Record<string, string>;
  queues: QueueEntry[];
  workers: WorkerEntry[];
  feed: string[];
}

export interface Reload {
  ok: boolean;
  time: string;
  problems: TableProblem[];
}

export interface TableProblem {
  file: string;
  line: number;
  column: number;
  code: string;
  message: string;
  hint: string | null;
  severity: 'error' | 'warning';
  /** The line, and what in it is meant, in characters from 0. */
  excerpt: { text: string; column: number; width: number };
}

export interface RouteEntry {
  id: string;
  method: string;
  path: string;
  summary: string | null;
  deprecated: boolean;
  action: 'publish' | 'call';
  exchange: string;
  key: string;
  queues: string[];
  accepts_unroutable?: boolean;
}

export interface QueueEntry {
  name: string;
  type: 'quorum' | 'classic' | 'rpc';
  bind: { exchange: string; key: string }[];
  dead_letter: string | null;
  max_length: number | null;
  /** Null where the bus has not looked yet. */
  there: boolean | null;
  consumers: number | null;
  messages: number | null;
}

export interface WorkerEntry {
  name: string;
  kind: string;
  queue: string;
}

/** Where history is asked; undefined where the table has no such route. */
export interface HistoryPlaces {
  list?: string;
  one?: string;
}

/** GET routes that call a queue of a history worker: one without parameters in its path gives pages, one with a last
 *  parameter gives one message. */
export function historyPlaces(table: TableDocument): HistoryPlaces {
  const served = new Set(table.workers.filter((worker) => worker.kind === 'history').map((worker) => worker.queue));
  const calls = table.routes.filter(
    (route) => route.action === 'call' && route.method === 'GET' && route.queues.some((queue) => served.has(queue)),
  );
  const list = calls.find((route) => !route.path.includes('{'))?.path;
  const one = calls.find((route) => /^[^{]*\/\{[^}*]+\}$/.test(route.path))?.path;
  return { ...(list === undefined ? {} : { list }), ...(one === undefined ? {} : { one }) };
}

export type Health = 'good' | 'idle' | 'missing' | 'unknown';

/** How a queue is: whether somebody takes from it now. */
export function health(queue: QueueEntry | undefined): Health {
  if (queue === undefined || queue.there === null) return 'unknown';
  if (!queue.there) return queue.type === 'rpc' ? 'idle' : 'missing';
  return queue.consumers === 0 ? 'idle' : 'good';
}
