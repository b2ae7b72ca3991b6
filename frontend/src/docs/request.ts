// A request that is tried, and the same for a terminal.

import type { Operation, Parameter } from './document';

export interface Draft {
  /** Values by place and name; an empty one is not sent. */
  values: Record<string, string>;
  contentType: string;
  body: string;
  /** In the place of `body`, where bytes are sent. */
  file?: File | undefined;
}

export interface Built {
  url: string;
  headers: Record<string, string>;
  body: string | File | undefined;
}

export const keyOf = (parameter: Parameter): string => `${parameter.in}.${parameter.name}`;

/** The request that a draft stands for. */
export function build(operation: Operation, draft: Draft, origin: string): Built {
  const headers: Record<string, string> = {};
  const query: string[] = [];
  let path = operation.path;
  for (const parameter of operation.parameters) {
    const value = draft.values[keyOf(parameter)] ?? '';
    if (parameter.in === 'path') path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value === '') continue;
    else if (parameter.in === 'query') query.push(`${encodeURIComponent(parameter.name)}=${encodeURIComponent(value)}`);
    else headers[parameter.name] = value;
  }
  const given = draft.file ?? (draft.body === '' ? undefined : draft.body);
  const body = operation.body === undefined ? undefined : given;
  if (body !== undefined) headers['Content-Type'] = draft.contentType;
  return { url: `${origin}${path}${query.length > 0 ? `?${query.join('&')}` : ''}`, headers, body };
}

/** Whether a body of this type is written as text. */
export const isText = (type: string): boolean => /^text\/|[/+](json|xml)$/.test(type);

/** Required path parameters without a value: their path would be another one. */
export const missing = (operation: Operation, draft: Draft): string[] =>
  operation.parameters
    .filter((parameter) => parameter.in === 'path' && (draft.values[keyOf(parameter)] ?? '') === '')
    .map((parameter) => parameter.name);

const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

/** The request as a line for a shell. */
export function curl(operation: Operation, { url, headers, body }: Built): string {
  const parts = ['curl -i'];
  if (operation.method !== 'GET') parts.push(`-X ${operation.method}`);
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${quoted(`${name}: ${value}`)}`);
  if (body !== undefined) parts.push(`--data-binary ${quoted(typeof body === 'string' ? body : `@${body.name}`)}`);
  parts.push(quoted(url));
  return parts.join(' ');
}
