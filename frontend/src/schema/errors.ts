// What the gateway said of fields, by where they are: `body` and a JSON Pointer, or `query/limit`.

import type { ComputedRef, InjectionKey } from 'vue';
import type { FieldError } from '../api';
import { step } from '../value';

export const ERRORS: InjectionKey<ComputedRef<ReadonlyMap<string, string>>> = Symbol('errors');

export const placeOf = (error: FieldError): string =>
  error.in === 'body' ? `body${error.pointer ?? ''}` : `${error.in}${step(error.name ?? '')}`;

/** The errors by place; two of one place are both told. */
export function byPlace(errors: readonly FieldError[]): Map<string, string> {
  const found = new Map<string, string>();
  for (const error of errors) {
    const at = placeOf(error);
    const known = found.get(at);
    found.set(at, known === undefined ? error.detail : `${known}; ${error.detail}`);
  }
  return found;
}
