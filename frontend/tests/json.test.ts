import fc from 'fast-check';
import { expect, test } from 'vitest';
import { readEvent } from '../src/event';
import { folded, items, members } from '../src/json';

test('members and items are the texts that were sent', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(0, 2), (value, space) => {
      const text = JSON.stringify({ a: value, 'b"\\': [value, 1] }, null, space);
      const found = members(text);
      expect(JSON.parse(found.get('a') ?? '')).toEqual(JSON.parse(JSON.stringify(value)));
      expect(items(found.get('b"\\') ?? '').map((item) => JSON.parse(item) as unknown)).toEqual(
        JSON.parse(JSON.stringify([value, 1])),
      );
      expect(JSON.parse(folded(text))).toEqual(JSON.parse(text));
    }),
  );
});

test('big numbers stay as they are', () => {
  expect(folded('{"n":12345678901234567890.10, "e":1e400}')).toBe(
    '{\n  "n": 12345678901234567890.10,\n  "e": 1e400\n}',
  );
});

test('an event keeps its data as text, and its time in microseconds', () => {
  const text =
    '{"specversion":"1.0","id":"i","type":"t","time":"2026-11-23T18:27:58.5Z","data":{"n":12345678901234567890}}';
  expect(readEvent(text)).toEqual({
    id: 'i',
    type: 't',
    subject: '',
    source: '',
    time: '2026-11-23T18:27:58.500000Z',
    data: '{"n":12345678901234567890}',
  });
  expect(readEvent('nope')).toBeUndefined();
  expect(readEvent('{"id":1}')).toBeUndefined();
});
