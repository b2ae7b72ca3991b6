// A message on one line.

import { members } from './json';

const MOST = 400;

/** The text of a message that has one, and the rest of its data; cut where nobody sees it. */
export function preview(data: string | undefined): { text: string; rest?: string } {
  if (data === undefined) return { text: '' };
  if (data.startsWith('"')) return { text: oneLine(JSON.parse(data) as string) };
  if (!data.startsWith('{') || data.length > 100_000) return { text: oneLine(data) };
  const all = members(data);
  const raw = all.get('text');
  if (raw?.startsWith('"') !== true) return { text: oneLine(data) };
  all.delete('text');
  all.delete('topic');
  const rest = [...all].map(([name, value]) => `${JSON.stringify(name)}:${value}`).join(',');
  const text = oneLine(JSON.parse(raw) as string);
  return rest === '' ? { text } : { text, rest: oneLine(`{${rest}}`) };
}

const oneLine = (text: string): string => text.slice(0, MOST).replaceAll(/\s+/g, ' ');
