// JSON as values that lose nothing: a number stays the text that it was written as.

import { items, members } from './json';

export class Num {
  constructor(readonly text: string) {}
}
export type Value = null | boolean | string | Num | Value[] | Members;
export interface Members {
  [name: string]: Value;
}

export const isMembers = (value: Value | undefined): value is Members =>
  typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Num);

/** Reads JSON; throws a `SyntaxError` that says where it is none. */
export function parse(text: string): Value {
  JSON.parse(text);
  return read(text.trim());
}

function read(text: string): Value {
  const first = text[0];
  if (first === '{') return Object.fromEntries([...members(text)].map(([name, raw]) => [name, read(raw)]));
  if (first === '[') return items(text).map(read);
  if (first === '"') return JSON.parse(text) as string;
  if (text === 'true' || text === 'false') return text === 'true';
  return text === 'null' ? null : new Num(text);
}

/** A value of JavaScript, such as a schema's default, as one of ours. */
export const lift = (plain: unknown): Value => read(JSON.stringify(plain ?? null));

/** Writes JSON; with an indent one member or item a line. */
export function print(value: Value, indent = 0, outer = ''): string {
  if (value instanceof Num) return value.text;
  if (value === null || typeof value !== 'object') return JSON.stringify(value);
  const inner = outer + ' '.repeat(indent);
  const parts = Array.isArray(value)
    ? value.map((item) => print(item, indent, inner))
    : Object.entries(value).map(
        ([name, item]) => `${JSON.stringify(name)}:${indent > 0 ? ' ' : ''}${print(item, indent, inner)}`,
      );
  const [open, close] = Array.isArray(value) ? '[]' : '{}';
  if (parts.length === 0) return `${open ?? ''}${close ?? ''}`;
  if (indent === 0) return `${open ?? ''}${parts.join(',')}${close ?? ''}`;
  return `${open ?? ''}\n${parts.map((part) => inner + part).join(',\n')}\n${outer}${close ?? ''}`;
}

/** Whether two values are written alike. */
export const same = (a: Value | undefined, b: Value | undefined): boolean =>
  a === undefined || b === undefined ? a === b : print(a) === print(b);

/** One step of a JSON Pointer (RFC 6901). */
export const step = (name: string | number): string => `/${String(name).replaceAll('~', '~0').replaceAll('/', '~1')}`;
