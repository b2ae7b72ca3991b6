// Where the page is: `#/history/<id>?topic=…`. A hash, because every server gives the same page for it.

import { shallowRef } from 'vue';

export const VIEWS = ['live', 'history', 'send', 'table', 'pulse'] as const;
export type View = (typeof VIEWS)[number];

export interface Place {
  view: View;
  /** What follows the view in the path. */
  rest: string;
  query: URLSearchParams;
}

/** Reads a hash; what is no view is Live. */
export function readHash(hash: string): Place {
  const [path = '', query = ''] = hash.replace(/^#?\/?/, '').split('?', 2);
  const [name = '', ...rest] = path.split('/');
  const view = VIEWS.find((known) => known === name) ?? 'live';
  return { view, rest: decoded(rest.join('/')), query: new URLSearchParams(query) };
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** The hash of a place. */
export function hash(view: View, rest = '', query: Record<string, string> = {}): string {
  const given = Object.entries(query).filter(([, value]) => value !== '');
  const search = given.length > 0 ? `?${new URLSearchParams(given).toString()}` : '';
  return `#/${view}${rest === '' ? '' : `/${encodeURIComponent(rest)}`}${search}`;
}

export const place = shallowRef(readHash(location.hash));
addEventListener('hashchange', () => {
  place.value = readHash(location.hash);
});

/** Goes there; `replace` leaves no step in the browser's history, as for what is typed into a filter. */
export function go(to: string, replace = false): void {
  if (replace) history.replaceState(null, '', to);
  else history.pushState(null, '', to);
  place.value = readHash(to);
}
