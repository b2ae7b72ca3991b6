import fc from 'fast-check';
import { expect, test } from 'vitest';
import { byPlace } from '../src/schema/errors';
import { chosen, initial, kindOf, resolve, sample, variants } from '../src/schema/schema';
import { lift, Num, parse, print, step } from '../src/value';

test('JSON read and written again is the same, numbers as they were', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(0, 2), (value, indent) => {
      const text = JSON.stringify(value);
      expect(JSON.parse(print(parse(text), indent))).toEqual(JSON.parse(text));
      expect(print(parse(text), indent)).toBe(JSON.stringify(JSON.parse(text), null, indent));
    }),
  );
  expect(print(parse('{"n": 12345678901234567890.10, "e":1e400}'))).toBe('{"n":12345678901234567890.10,"e":1e400}');
  expect(() => parse('{"a":}')).toThrow(SyntaxError);
});

test('pointers are escaped', () => {
  expect(step('a/b~c')).toBe('/a~1b~0c');
  expect(step(3)).toBe('/3');
});

const document = {
  components: {
    schemas: {
      Money: { type: 'object', required: ['amount'], properties: { amount: { type: 'integer', minimum: 5 } } },
      Tree: { type: 'object', properties: { child: { $ref: '#/components/schemas/Tree' } } },
      Loop: { $ref: '#/components/schemas/Loop' },
    },
  },
};
const roots = [document];

test('references are followed, with what stands beside them; a loop ends', () => {
  const schema = { $ref: '#/components/schemas/Money', description: 'a price' };
  expect(resolve(schema, roots)).toMatchObject({ type: 'object', required: ['amount'], description: 'a price' });
  expect(kindOf(resolve({ $ref: '#/components/schemas/Loop' }, roots))).toBe('any');
  expect(resolve({ $ref: '#/nowhere' }, roots)).toEqual({});
  expect(resolve(true, roots)).toEqual({});
  const inner = { $defs: { x: { type: 'string' } }, properties: { a: { $ref: '#/$defs/x' } } };
  expect(kindOf(resolve(inner.properties.a, [document, inner]))).toBe('string');
});

test('allOf is joined: members and what is required of all', () => {
  const schema = {
    allOf: [
      { $ref: '#/components/schemas/Money' },
      { required: ['currency'], properties: { currency: { enum: ['EUR', 'MZN'] } } },
    ],
  };
  const joined = resolve(schema, roots);
  expect(joined.required).toEqual(['amount', 'currency']);
  expect(Object.keys(joined.properties as object)).toEqual(['amount', 'currency']);
});

test('a form begins with defaults and constants, and nothing made up', () => {
  const schema = {
    type: 'object',
    required: ['text', 'kind', 'price', 'tags'],
    properties: {
      text: { type: 'string' },
      topic: { type: 'string', default: 'general' },
      note: { type: 'string' },
      kind: { const: 'order' },
      price: { $ref: '#/components/schemas/Money' },
      tags: { type: 'array', minItems: 1, items: { type: 'string', default: 'new' } },
    },
  };
  const begun = initial(schema, roots);
  expect(begun && print(begun)).toBe('{"topic":"general","kind":"order","price":{},"tags":["new"]}');
  expect(initial({ $ref: '#/components/schemas/Tree' }, roots)).toEqual({});
});

test('an example has what is required, of the right kind', () => {
  const schema = {
    type: 'object',
    required: ['text', 'at', 'n', 'price', 'list'],
    properties: {
      text: { type: 'string', minLength: 8 },
      at: { type: 'string', format: 'date-time' },
      n: { type: 'number', exclusiveMinimum: 2 },
      price: { $ref: '#/components/schemas/Money' },
      list: { type: 'array', items: { enum: ['a', 'b'] } },
      no: { type: 'string' },
    },
  };
  expect(print(sample(schema, roots))).toBe(
    '{"text":"Hello!!!","at":"2026-01-31T12:00:00Z","n":3,"price":{"amount":5},"list":["a"]}',
  );
});

test('a value says which variant it is', () => {
  const shape = {
    title: 'Shape',
    oneOf: [
      { required: ['kind', 'r'], properties: { kind: { const: 'circle' }, r: { type: 'number' } } },
      { required: ['kind', 'side'], properties: { kind: { const: 'square' }, side: { type: 'number' } } },
    ],
    type: 'object',
  };
  const all = variants(shape, roots);
  expect(all.map((one) => one.title)).toEqual(['kind: circle', 'kind: square']);
  expect(chosen(all, parse('{"kind":"square","side":2}'), roots)).toBe(1);
  // Half filled in.
  expect(chosen(all, parse('{"kind":"square"}'), roots)).toBe(1);
  expect(chosen(all, undefined, roots)).toBe(0);
  const types = variants({ type: ['string', 'null', 'integer'], description: 'd' }, roots);
  expect(types.map((one) => one.title)).toEqual(['string', 'null', 'integer']);
  expect(chosen(types, null, roots)).toBe(1);
  expect(chosen(types, new Num('7'), roots)).toBe(2);
});

test('what is refused lands where it belongs', () => {
  const found = byPlace([
    { in: 'body', pointer: '/text', keyword: 'required', detail: 'is missing' },
    { in: 'query', name: 'limit', keyword: 'maximum', detail: 'too much' },
    { in: 'query', name: 'limit', keyword: 'type', detail: 'no integer' },
    { in: 'body', pointer: '', keyword: 'type', detail: 'must be an object' },
  ]);
  expect([...found]).toEqual([
    ['body/text', 'is missing'],
    ['query/limit', 'too much; no integer'],
    ['body', 'must be an object'],
  ]);
});

test('values of JavaScript are lifted', () => {
  expect(lift({ a: [1, 'x', null, true] })).toEqual({ a: [new Num('1'), 'x', null, true] });
});
