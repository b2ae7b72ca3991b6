// From a filled-in form to a request.

import type { Operation } from '../openapi';
import { Num, print, type Value } from '../value';

export type Given = ReadonlyMap<string, Value>;

/** Key of a parameter's value. */
export const keyOf = (place: string, name: string): string => `${place}/${name}`;

const asText = (value: Value): string =>
  value instanceof Num ? value.text : typeof value === 'string' ? value : print(value);

/** A path's place holders filled in; one without a value stays, so that it is seen. `{*rest}` keeps its slashes. */
function path(operation: Operation, given: Given): string {
  return operation.path.replaceAll(/\{(\*?)([^}]+)\}/g, (hole, rest: string, name: string) => {
    const value = given.get(keyOf('path', name));
    if (value === undefined || value === '') return hole;
    const text = asText(value);
    return rest === '' ? encodeURIComponent(text) : text.split('/').map(encodeURIComponent).join('/');
  });
}

/** The path with its query, as it is sent. */
export function target(operation: Operation, given: Given): string {
  const query = new URLSearchParams();
  for (const parameter of operation.parameters) {
    const value = given.get(keyOf(parameter.in, parameter.name));
    if (parameter.in !== 'query' || value === undefined) continue;
    for (const one of Array.isArray(value) ? value : [value]) query.append(parameter.name, asText(one));
  }
  const search = query.toString();
  return path(operation, given) + (search === '' ? '' : `?${search}`);
}

/** Header parameters that are given. */
export function headers(operation: Operation, given: Given): Record<string, string> {
  const found: Record<string, string> = {};
  for (const parameter of operation.parameters) {
    const value = given.get(keyOf(parameter.in, parameter.name));
    if (parameter.in !== 'header' || value === undefined) continue;
    found[parameter.name] = Array.isArray(value) ? value.map(asText).join(',') : asText(value);
  }
  return found;
}

/** Path parameters that are not given. */
export const unfilled = (operation: Operation, given: Given): string[] =>
  operation.parameters
    .filter((one) => one.in === 'path' && (given.get(keyOf('path', one.name)) ?? '') === '')
    .map((one) => one.name);
