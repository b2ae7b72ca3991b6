// An event as the page knows it, read from its CloudEvents document.

import { members } from './json';

export interface Event {
  id: string;
  /** RFC 3339 in UTC with six digits of a second: texts sort as times do. */
  time: string;
  /** The MQTT topic; empty where there is none. */
  subject: string;
  type: string;
  /** `/` and the id of the route that it came in by. */
  source: string;
  /** The data as it was sent, byte for byte; undefined where there is none. */
  data?: string;
}

/** Reads a document; undefined when it is no event. */
export function readEvent(text: string): Event | undefined {
  try {
    const envelope = JSON.parse(text) as Record<string, unknown>;
    const { id, time, subject, type, source } = envelope;
    if (typeof id !== 'string' || typeof time !== 'string' || typeof type !== 'string') return undefined;
    const raw = members(text);
    const data = raw.get('data') ?? raw.get('data_base64');
    const word = (value: unknown): string => (typeof value === 'string' ? value : '');
    const event = { id, time: micros(time), subject: word(subject), type, source: word(source) };
    return data === undefined ? event : { ...event, data };
  } catch {
    return undefined;
  }
}

/** A time of any precision, in UTC with six digits of a second. */
function micros(time: string): string {
  const parts = /^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?Z$/.exec(time);
  if (!parts) {
    const parsed = new Date(time);
    return Number.isNaN(parsed.getTime()) ? time : parsed.toISOString().replace('Z', '000Z');
  }
  return `${parts[1] ?? ''}.${(parts[2] ?? '').padEnd(6, '0').slice(0, 6)}Z`;
}
