// OpenAPI and AsyncAPI documents as what the page shows. Both are read as they come: what is not there is not shown.

export type Json = Record<string, unknown>;

export const isObject = (value: unknown): value is Json =>
  typeof value === 'object' && value !== null && !Array.isArray(value);
export const object = (value: unknown): Json => (isObject(value) ? value : {});
export const text = (value: unknown): string => (typeof value === 'string' ? value : '');
export const list = (value: unknown): unknown[] => (Array.isArray(value) ? (value as unknown[]) : []);

/** What a reference into the document leads to; the value itself where it is none. */
export function resolve(document: Json, value: unknown): unknown {
  let here = value;
  for (let hops = 0; hops < 20 && isObject(here) && typeof here.$ref === 'string'; hops += 1) {
    const pointer = here.$ref;
    if (!pointer.startsWith('#')) return {};
    here = decodeURIComponent(pointer.slice(1))
      .split('/')
      .slice(1)
      .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
      .reduce<unknown>(
        (at, token) =>
          Array.isArray(at) ? at[Number(token)] : isObject(at) && Object.hasOwn(at, token) ? at[token] : {},
        document,
      );
  }
  return here;
}

/** The last name of a reference: `#/components/schemas/Problem` is `Problem`. */
export const nameOf = (reference: unknown): string => decodeURIComponent(text(reference).split('/').at(-1) ?? '');

export interface Parameter {
  name: string;
  in: 'path' | 'query' | 'header';
  required: boolean;
  description: string;
  schema: unknown;
  example: unknown;
  /** One the gateway knows of every route: not of the table. */
  common: boolean;
}

export interface Media {
  type: string;
  schema: unknown;
  examples: { name: string; value: unknown }[];
}

export interface Response {
  status: string;
  description: string;
  headers: { name: string; description: string }[];
  media: Media[];
}

export interface Operation {
  id: string;
  method: string;
  path: string;
  summary: string;
  description: string;
  deprecated: boolean;
  tag: string;
  action: string;
  parameters: Parameter[];
  body: { required: boolean; description: string; media: Media[] } | undefined;
  responses: Response[];
  /** Whether a browser can try it: a WebSocket it can't. */
  plain: boolean;
}

const METHODS = ['get', 'post', 'put', 'patch', 'delete'];

/** All operations of an OpenAPI document, in its order. */
export function operations(document: Json): Operation[] {
  return Object.entries(object(document.paths)).flatMap(([path, item]) =>
    Object.entries(object(item))
      .filter(([method]) => METHODS.includes(method))
      .map(([method, from]) => operation(document, path, method, object(from))),
  );
}

function operation(document: Json, path: string, method: string, from: Json): Operation {
  const responses = Object.entries(object(from.responses)).map(([status, response]) =>
    responseOf(document, status, response),
  );
  const body = isObject(from.requestBody) ? object(resolve(document, from.requestBody)) : undefined;
  return {
    id: text(from.operationId) || `${method} ${path}`,
    method: method.toUpperCase(),
    path,
    summary: text(from.summary),
    description: text(from.description),
    deprecated: from.deprecated === true,
    tag: text(list(from.tags)[0]) || 'routes',
    action: text(object(from['x-fpesa']).action),
    parameters: list(from.parameters).map((parameter) => parameterOf(document, parameter)),
    body: body && { required: body.required === true, description: text(body.description), media: mediaOf(body) },
    responses,
    plain: !responses.some(({ status }) => status === '101'),
  };
}

function parameterOf(document: Json, from: unknown): Parameter {
  const parameter = object(resolve(document, from));
  const place = text(parameter.in);
  return {
    name: text(parameter.name),
    in: place === 'path' || place === 'header' ? place : 'query',
    required: parameter.required === true,
    description: text(parameter.description),
    schema: parameter.schema ?? {},
    example: parameter.example,
    common: isObject(from) && typeof from.$ref === 'string',
  };
}

function responseOf(document: Json, status: string, from: unknown): Response {
  const response = object(resolve(document, from));
  const headers = Object.entries(object(response.headers)).map(([name, header]) => ({
    name,
    description: text(object(resolve(document, header)).description),
  }));
  return { status, description: text(response.description), headers, media: mediaOf(response) };
}

function mediaOf(from: Json): Media[] {
  return Object.entries(object(from.content)).map(([type, media]) => {
    const { schema, example, examples } = object(media);
    const named = Object.entries(object(examples)).map(([name, one]) => ({ name, value: object(one).value }));
    return { type, schema, examples: example === undefined ? named : [{ name: 'example', value: example }, ...named] };
  });
}

export interface Message {
  name: string;
  title: string;
  description: string;
  contentType: string;
  headers: unknown;
  payload: unknown;
  example: Json | undefined;
  properties: [string, string][];
}

export interface Channel {
  id: string;
  address: string;
  title: string;
  description: string;
  /** What the gateway and its workers do here. */
  actions: { action: string; title: string; reply: string }[];
  /** Where it is: words of its bindings. */
  facts: [string, string][];
  parameters: { name: string; description: string; default: string }[];
  messages: Message[];
}

/** All channels of an AsyncAPI document, in its order. */
export function channels(document: Json): Channel[] {
  const all = new Map<string, Json[]>();
  for (const operation of Object.values(object(document.operations)).map(object)) {
    const channel = nameOf(object(operation.channel).$ref);
    const mine = all.get(channel);
    if (mine === undefined) all.set(channel, [operation]);
    else mine.push(operation);
  }
  return Object.entries(object(document.channels)).map(([id, from]) => {
    const channel = object(from);
    const mine = all.get(id) ?? [];
    return {
      id,
      address: channel.address === null ? 'the queue that reply_to names' : text(channel.address),
      title: text(channel.title) || id,
      description: text(channel.description),
      actions: mine.map((operation) => ({
        action: text(operation.action),
        title: text(operation.title) || text(operation.summary),
        reply: nameOf(object(object(operation.reply).channel).$ref),
      })),
      facts: facts(document, channel),
      parameters: Object.entries(object(channel.parameters)).map(([name, parameter]) => ({
        name,
        description: text(object(parameter).description),
        default: text(object(parameter).default),
      })),
      messages: Object.values(object(channel.messages)).map((message) => messageOf(document, message)),
    };
  });
}

function facts(document: Json, channel: Json): [string, string][] {
  const found: [string, string][] = [];
  for (const server of list(channel.servers)) {
    const { protocol, host, pathname } = object(resolve(document, server));
    found.push(['server', `${text(protocol)} ${text(host)}${text(pathname)}`]);
  }
  const amqp = object(object(channel.bindings).amqp);
  for (const part of ['exchange', 'queue']) {
    if (!isObject(amqp[part])) continue;
    for (const [name, value] of Object.entries(amqp[part])) {
      found.push([name === 'name' ? part : name.replace(/^x-/, ''), String(value)]);
    }
  }
  return found;
}

function messageOf(document: Json, from: unknown): Message {
  const message = object(resolve(document, from));
  const example = list(message.examples)[0];
  return {
    name: text(message.name),
    title: text(message.title),
    description: text(message.description),
    contentType: text(message.contentType),
    headers: message.headers,
    payload: message.payload,
    example: isObject(example) ? example : undefined,
    properties: Object.entries(object(message['x-properties'])).map(([name, value]) => [name, String(value)]),
  };
}

/** A schema with what it refers to and all of `allOf` in one. */
export function joined(document: Json, schema: unknown, depth = 0): Json {
  const { allOf, ...own } = object(resolve(document, schema));
  const all = depth > 8 ? [] : list(allOf).map((part) => joined(document, part, depth + 1));
  return [...all, own].reduce<Json>(
    (into, { properties, required, ...rest }) => ({
      ...into,
      ...rest,
      ...(properties === undefined ? {} : { properties: { ...object(into.properties), ...object(properties) } }),
      ...(required === undefined ? {} : { required: [...new Set([...list(into.required), ...list(required)])] }),
    }),
    {},
  );
}

/** A schema's type in a few words: `array of string`, `"a" | "b"`. */
export function typeOf(document: Json, schema: unknown): string {
  if (schema === false) return 'nothing';
  const one = joined(document, schema);
  if ('const' in one) return JSON.stringify(one.const);
  if (Array.isArray(one.enum)) return one.enum.map((value) => JSON.stringify(value)).join(' | ');
  if (one.type === 'array') {
    return isObject(one.items) ? `array of ${typeOf(document, one.items)}` : 'array';
  }
  if (Array.isArray(one.type)) return one.type.join(' | ');
  if (typeof one.type === 'string') return typeof one.format === 'string' ? `${one.type} (${one.format})` : one.type;
  if (isObject(one.properties)) return 'object';
  for (const choice of ['oneOf', 'anyOf']) {
    const choices = list(one[choice]);
    if (choices.length > 0) return 'one of several';
  }
  return 'any';
}

const SAID = ['minimum', 'maximum', 'exclusiveMinimum', 'exclusiveMaximum', 'multipleOf', 'minLength', 'maxLength'];
const SAID_TOO = ['pattern', 'minItems', 'maxItems', 'uniqueItems', 'minProperties', 'maxProperties', 'default'];

/** What else a schema asks, keyword by keyword. */
export function limits(document: Json, schema: unknown): string[] {
  const one = joined(document, schema);
  const said = [...SAID, ...SAID_TOO].filter((keyword) => keyword in one);
  return said.map(
    (keyword) => `${keyword} ${typeof one[keyword] === 'string' ? one[keyword] : JSON.stringify(one[keyword])}`,
  );
}
