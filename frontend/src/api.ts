// The gateway's API: sending, reading history, and what the gateway says of itself. Refusals come back as problems
// (RFC 9457).

import { readEvent, type Event } from './event';
import { items, members } from './json';
import { historyPlaces, type HistoryPlaces, type TableDocument } from './table';

export interface FieldError {
  in: 'body' | 'path' | 'query' | 'header';
  pointer?: string;
  name?: string;
  keyword: string;
  detail: string;
}

/** What a refusal says. */
export interface Problem {
  status: number;
  title: string;
  detail: string;
  outcome?: string;
  errors: FieldError[];
  /** Seconds, where the gateway says when to try again. */
  retryAfter?: number;
}

export class Refused extends Error {
  constructor(readonly problem: Problem) {
    super(problem.detail);
  }
}

/** What went wrong, whatever was thrown. */
export const problemOf = (error: unknown, title: string): Problem =>
  error instanceof Refused
    ? error.problem
    : {
        status: 0,
        title,
        detail: 'The answer can’t be read: is this page of the same version as the gateway?',
        errors: [],
      };

async function request(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    const detail = 'The gateway can’t be reached. Is it running, and is this machine online?';
    throw new Refused({ status: 0, title: 'No connection', detail, errors: [] });
  }
  if (!response.ok) throw new Refused(readProblem(response.status, response.headers, await response.text()));
  return response;
}

/** A refusal's answer as a problem, whatever it looks like. */
export function readProblem(status: number, headers: Headers, body: string): Problem {
  let said: Partial<Problem> = {};
  try {
    said = (JSON.parse(body) ?? {}) as Partial<Problem>;
  } catch {
    // No problem document: its status is all there is.
  }
  const retry = Number(headers.get('retry-after') ?? 'none');
  return {
    status,
    title: said.title ?? `Status ${status}`,
    detail: said.detail ?? 'The gateway gave no reason.',
    errors: Array.isArray(said.errors) ? said.errors : [],
    ...(said.outcome === undefined ? {} : { outcome: said.outcome }),
    ...(Number.isNaN(retry) ? {} : { retryAfter: retry }),
  };
}

/** What history is asked. */
export interface PageQuery {
  limit: number;
  before?: string;
  after?: string;
  topic?: string;
  until?: string;
}

export interface Page {
  events: Event[];
  /** The same events as they came, one JSON text each. */
  texts: string[];
  /** Cursor of the following, older page; with `after` the id to go on with. */
  next: string | null;
}

/** The table names no route that asks a history worker. */
export class NoHistory extends Refused {
  constructor() {
    const detail =
      'No GET route of the table calls a queue that a worker of kind `history` serves: add one as in the shipped routes.yaml.';
    super({ status: 404, title: 'The table has no history', detail, errors: [] });
  }
}

let places: Promise<HistoryPlaces> | undefined;

/** Where history is; looked up once, and again after a reload may have moved it. */
async function asHistory<T>(ask: (places: HistoryPlaces) => Promise<T>): Promise<T> {
  places ??= table().then(historyPlaces);
  try {
    return await ask(await places);
  } catch (error) {
    places = undefined;
    const moved = error instanceof Refused && error.problem.title === 'Not found';
    if (!moved) throw error;
    places = table().then(historyPlaces);
    return ask(await places);
  }
}

/** One page of history, newest first; with `after` oldest first. */
export function history(query: PageQuery): Promise<Page> {
  return asHistory(async ({ list }) => {
    if (list === undefined) throw new NoHistory();
    const given = Object.entries(query).filter(([, value]) => value !== undefined && value !== '');
    const search = new URLSearchParams(given.map(([name, value]) => [name, String(value)]));
    const response = await request(`${list}?${search.toString()}`);
    const page = members(await response.text());
    const read = items(page.get('items') ?? '[]').map((text) => ({ text, event: readEvent(text) }));
    const found = read.flatMap(({ text, event }) => (event === undefined ? [] : [{ text, event }]));
    return {
      events: found.map(({ event }) => event),
      texts: found.map(({ text }) => text),
      next: JSON.parse(page.get('next') ?? 'null') as string | null,
    };
  });
}

/** One message; undefined where history does not have it. */
export function one(id: string): Promise<Event | undefined> {
  return asHistory(async ({ one }) => {
    if (one === undefined) throw new NoHistory();
    try {
      const response = await request(one.replace(/\{[^}]+\}/, encodeURIComponent(id)));
      return readEvent(await response.text());
    } catch (error) {
      if (error instanceof Refused && [404, 422].includes(error.problem.status)) return undefined;
      throw error;
    }
  });
}

export interface FeedDocument {
  url: string;
  topics: string[];
  username?: string;
  password?: string;
}

async function json<T>(path: string): Promise<T> {
  return (await (await request(path)).json()) as T;
}

/** Where and what a browser may listen to. */
export const feedDocument = (): Promise<FeedDocument> => json('/feed.json');
/** The table in force. */
export const table = (): Promise<TableDocument> => json('/table.json');
/** The API's description. */
export const openapi = (): Promise<unknown> => json('/openapi.json');
/** The last quarter of an hour of the gateway that answers. */
export const pulse = (): Promise<unknown> => json('/pulse.json');
