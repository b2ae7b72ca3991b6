// `/openapi.json` as the routes that can be asked, each with its parameters and its body.

import { print } from './value';
import { resolve, sample, type Roots } from './schema/schema';

export interface Parameter {
  name: string;
  in: 'path' | 'query' | 'header';
  required: boolean;
  description?: string;
  schema: unknown;
}

export interface Operation {
  id: string;
  method: string;
  path: string;
  summary?: string;
  description?: string;
  deprecated: boolean;
  action?: 'publish' | 'call';
  parameters: Parameter[];
  body?: { type: string; json: boolean; required: boolean; schema: unknown };
}

export interface Api {
  operations: Operation[];
  document: unknown;
}

type Json = Record<string, unknown>;
const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
const word = (value: unknown): string | undefined => (typeof value === 'string' && value !== '' ? value : undefined);
const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** Follows a reference to a parameter or a body; a schema's are followed by the form. */
function followed(value: unknown, document: unknown): unknown {
  return isObject(value) && typeof value.$ref === 'string' ? resolve(value, [document]) : value;
}

/** The table's operations in the document's order; the gateway's own paths are none of them. */
export function readApi(document: unknown): Api {
  const paths = isObject(document) && isObject(document.paths) ? document.paths : {};
  const operations = Object.entries(paths).flatMap(([path, item]) => {
    if (!isObject(item)) return [];
    return METHODS.flatMap((method): Operation[] => {
      const operation = item[method];
      if (!isObject(operation) || !isObject(operation['x-fpesa'])) return [];
      const own = Array.isArray(operation.parameters) ? operation.parameters : [];
      const shared = Array.isArray(item.parameters) ? item.parameters : [];
      const parameters = [...(shared as unknown[]), ...(own as unknown[])]
        .map((one) => followed(one, document))
        .filter(isObject);
      const body = bodyOf(followed(operation.requestBody, document));
      const marked = operation['x-fpesa'].action;
      const summary = word(operation.summary);
      const description = word(operation.description);
      return [
        {
          id: word(operation.operationId) ?? `${method} ${path}`,
          method: method.toUpperCase(),
          path,
          deprecated: operation.deprecated === true,
          parameters: parameters.flatMap(parameterOf),
          ...(summary === undefined ? {} : { summary }),
          ...(description === undefined ? {} : { description }),
          ...(marked === 'publish' || marked === 'call' ? { action: marked } : {}),
          ...(body === undefined ? {} : { body }),
        },
      ];
    });
  });
  return { operations, document };
}

/** Headers that the page sets by itself, or that a browser lets no page set. */
const OWN_HEADERS = [
  'idempotency-key',
  'prefer',
  'content-type',
  'accept',
  'x-request-id',
  'traceparent',
  'tracestate',
];

function parameterOf(parameter: Json): Parameter[] {
  const name = word(parameter.name);
  const place = parameter.in;
  if (name === undefined || (place !== 'path' && place !== 'query' && place !== 'header')) return [];
  if (place === 'header' && OWN_HEADERS.includes(name.toLowerCase())) return [];
  const description = word(parameter.description);
  return [
    {
      name,
      in: place,
      required: place === 'path' || parameter.required === true,
      schema: parameter.schema ?? {},
      ...(description === undefined ? {} : { description }),
    },
  ];
}

function bodyOf(body: unknown): Operation['body'] {
  if (!isObject(body) || !isObject(body.content)) return undefined;
  const all = Object.entries(body.content);
  const isJson = (type: string): boolean => type === 'application/json' || type.endsWith('+json');
  const [type, media] = all.find(([type]) => isJson(type)) ?? all[0] ?? [];
  if (type === undefined) return undefined;
  return {
    type,
    json: isJson(type),
    required: body.required === true,
    schema: isObject(media) ? (media.schema ?? {}) : {},
  };
}

/** Where references of an operation's body are looked up. */
export const rootsOf = (api: Api, schema: unknown): Roots => [api.document, schema];

/** A body to begin with, for a command that works as it stands. */
export function exampleBody(api: Api, operation: Operation): string | undefined {
  if (operation.body?.json !== true) return undefined;
  return print(sample(operation.body.schema, rootsOf(api, operation.body.schema)));
}
