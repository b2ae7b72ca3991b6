import { describe, expect, test } from 'vitest';
import { channels, joined, limits, operations, resolve, typeOf, type Json } from '../src/docs/document';
import { build, curl, missing, type Draft } from '../src/docs/request';

const document: Json = {
  paths: {
    '/api/{shop}': {
      put: {
        operationId: 'change',
        parameters: [
          { name: 'shop', in: 'path', required: true, schema: { type: 'string' }, example: 'a/b' },
          { name: 'kind', in: 'query', schema: { type: 'array', items: { enum: ['x', 'y'] } } },
          { $ref: '#/components/parameters/id' },
        ],
        requestBody: {
          required: true,
          content: { 'application/json': { schema: { $ref: '#/components/schemas/a~1b' } } },
        },
        responses: { '204': { description: 'done' }, default: { $ref: '#/components/responses/worker' } },
        'x-fpesa': { action: 'publish' },
      },
    },
    '/mqtt': { get: { responses: { '101': { description: 'a WebSocket' } } } },
  },
  components: {
    parameters: { id: { name: 'Idempotency-Key', in: 'header', schema: { type: 'string' } } },
    responses: { worker: { description: 'any', content: { 'application/problem+json': {} } } },
    schemas: {
      'a/b': {
        allOf: [{ required: ['a'], properties: { a: { type: 'integer', minimum: 1 } } }],
        required: ['b'],
        properties: { b: { $ref: '#/components/schemas/a~1b' } },
      },
      loop: { $ref: '#/components/schemas/loop' },
    },
  },
};

describe('a document', () => {
  test('is read as operations', () => {
    const [change, mqtt] = operations(document);
    expect(change).toMatchObject({ id: 'change', method: 'PUT', tag: 'routes', action: 'publish', plain: true });
    expect(change?.parameters.map(({ name, common }) => [name, common])).toEqual([
      ['shop', false],
      ['kind', false],
      ['Idempotency-Key', true],
    ]);
    expect(change?.responses.map(({ status, description }) => [status, description])).toEqual([
      ['204', 'done'],
      ['default', 'any'],
    ]);
    expect(mqtt).toMatchObject({ id: 'get /mqtt', plain: false });
  });

  test('has references that end', () => {
    expect(resolve(document, { $ref: '#/components/schemas/nothing' })).toEqual({});
    expect(resolve(document, { $ref: 'https://elsewhere.example/' })).toEqual({});
    resolve(document, { $ref: '#/components/schemas/loop' });
    expect(joined(document, { allOf: [{ $ref: '#/components/schemas/a~1b' }] })).toMatchObject({
      required: ['a', 'b'],
      properties: { a: { minimum: 1 } },
    });
  });

  test('has types in words', () => {
    const words = (schema: unknown): string => [typeOf(document, schema), ...limits(document, schema)].join(', ');
    expect(words({ type: 'array', items: { enum: ['x', 1] }, minItems: 2 })).toBe('array of "x" | 1, minItems 2');
    expect(words({ type: ['string', 'null'], pattern: '^a$' })).toBe('string | null, pattern ^a$');
    expect(words({ $ref: '#/components/schemas/a~1b' })).toBe('object');
    expect(words({ const: 'q' })).toBe('"q"');
    expect(words(true)).toBe('any');
  });

  test('is read as channels', () => {
    const [channel] = channels({
      servers: { bus: { protocol: 'amqp', host: 'h' } },
      channels: {
        c: {
          address: 'a.{b}',
          servers: [{ $ref: '#/servers/bus' }],
          bindings: { amqp: { is: 'routingKey', exchange: { name: 'x', type: 'topic' } } },
          messages: { m: { $ref: '#/components/messages/m' } },
        },
      },
      operations: { o: { action: 'send', title: 't', channel: { $ref: '#/channels/c' } } },
      components: { messages: { m: { name: 'm', examples: [{ payload: { a: 1 } }] } } },
    });
    expect(channel).toMatchObject({
      address: 'a.{b}',
      actions: [{ action: 'send', title: 't' }],
      facts: [
        ['server', 'amqp h'],
        ['exchange', 'x'],
        ['type', 'topic'],
      ],
      messages: [{ name: 'm', example: { payload: { a: 1 } } }],
    });
  });
});

describe('a request', () => {
  const operation = operations(document)[0];
  if (operation === undefined) throw new Error('there is none');
  const draft: Draft = {
    values: { 'path.shop': 'a/b', 'query.kind': 'x,y', 'header.Idempotency-Key': '' },
    contentType: 'application/json',
    body: `{"a":"it's"}`,
  };

  test('has what is given and nothing else', () => {
    expect(build(operation, draft, 'http://h')).toEqual({
      url: 'http://h/api/a%2Fb?kind=x%2Cy',
      headers: { 'Content-Type': 'application/json' },
      body: draft.body,
    });
    expect(missing(operation, draft)).toEqual([]);
    expect(missing(operation, { ...draft, values: {} })).toEqual(['shop']);
  });

  test('is the same in a shell', () => {
    const file = new File(['bytes'], 'a picture.png');
    expect(curl(operation, build(operation, { ...draft, file }, 'http://h'))).toContain(
      `--data-binary '@a picture.png'`,
    );
    expect(curl(operation, build(operation, draft, 'http://h'))).toBe(
      `curl -i -X PUT -H 'Content-Type: application/json' --data-binary '{"a":"it'\\''s"}' 'http://h/api/a%2Fb?kind=x%2Cy'`,
    );
  });
});
