// The gateway's API: sending one message, and reading history. Refusals come back as problems (RFC 9457).

import { readEvent, type Event } from './event';
import { items, members } from './json';

export const MESSAGES = '/api/v1/messages';

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

async function request(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch {
    throw new Refused({ status: 0, title: 'No connection', detail: 'The gateway can’t be reached.', errors: [] });
  }
  if (!response.ok) throw new Refused(await problem(response));
  return response;
}

async function problem(response: Response): Promise<Problem> {
  const said = (await response.json().catch(() => ({}))) as Partial<Problem>;
  const retry = Number(response.headers.get('retry-after') ?? 'none');
  return {
    status: response.status,
    title: said.title ?? `Status ${response.status}`,
    detail: said.detail ?? 'The gateway gave no reason.',
    errors: said.errors ?? [],
    ...(said.outcome === undefined ? {} : { outcome: said.outcome }),
    ...(Number.isNaN(retry) ? {} : { retryAfter: retry }),
  };
}

/** Sends a body; the id makes a second try of the same message harmless. Gives the message's id. */
export async function send(body: string, id: string): Promise<string> {
  const headers = { 'content-type': 'application/json', 'idempotency-key': id };
  const response = await request(MESSAGES, { method: 'POST', headers, body });
  const answer = (await response.json()) as { id: string };
  return answer.id;
}

export interface Page {
  events: Event[];
  /** Cursor of the following, older page. */
  next: string | null;
}

/** One page of history, newest first. */
export async function history(limit: number, before?: string): Promise<Page> {
  const query = new URLSearchParams({ limit: String(limit), ...(before === undefined ? {} : { before }) });
  const response = await request(`${MESSAGES}?${query.toString()}`);
  const page = members(await response.text());
  const events = items(page.get('items') ?? '[]').map(readEvent);
  return {
    events: events.filter((event) => event !== undefined),
    next: JSON.parse(page.get('next') ?? 'null') as string | null,
  };
}

export interface FeedDocument {
  url: string;
  topics: string[];
  username?: string;
  password?: string;
}

/** Where and what a browser may listen to. */
export async function feedDocument(): Promise<FeedDocument> {
  return (await (await request('/feed.json')).json()) as FeedDocument;
}
