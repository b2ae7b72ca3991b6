import { execFileSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { justAfter } from '../src/history/history';
import { preview } from '../src/preview';
import { readApi } from '../src/openapi';
import { combined, quantile, type PulseDocument } from '../src/pulse';
import { hash, readHash } from '../src/router';
import { curl, javascript, python, shellQuoted } from '../src/snippets';
import { health, historyPlaces, type QueueEntry, type TableDocument } from '../src/table';
import { isFilter, topicMatches } from '../src/topic';
import { Num, type Value } from '../src/value';
import { headers, target, unfilled } from '../src/views/request';

test('the first load stays under 200 KB of gzip: all of the page but MQTT.js and the documentation', () => {
  const assets = resolve(import.meta.dirname, '../dist/assets');
  const parts = readdirSync(assets).filter((name) => /\.(js|css)$/.test(name) && !/^(mqtt|docs)/.test(name));
  const html = readFileSync(join(assets, '../index.html'));
  const size = [html, ...parts.map((name) => readFileSync(join(assets, name)))]
    .map((bytes) => gzipSync(bytes, { level: 9 }).length)
    .reduce((sum, bytes) => sum + bytes, 0);
  expect(parts.length).toBeGreaterThan(3);
  expect(size).toBeLessThan(200 * 1024);
  // MQTT.js is a part of its own, which nothing needs to begin.
  expect(html.toString()).not.toMatch(/mqtt/);
  expect(existsSync(join(assets, '../index.html'))).toBe(true);
});

test('places are hashes, and back', () => {
  expect(readHash('')).toMatchObject({ view: 'live', rest: '' });
  expect(readHash('#/nonsense').view).toBe('live');
  fc.assert(
    fc.property(fc.string({ minLength: 1 }), fc.string({ minLength: 1 }), (rest, topic) => {
      const place = readHash(hash('history', rest, { topic, until: '' }));
      expect([place.view, place.rest, place.query.get('topic')]).toEqual(['history', rest, topic]);
      expect(place.query.has('until')).toBe(false);
    }),
  );
});

test('topic filters', () => {
  for (const [filter, topic, expected] of [
    ['messages/#', 'messages/a/b', true],
    ['messages/#', 'messages', true],
    ['messages/+', 'messages/a', true],
    ['messages/+', 'messages/a/b', false],
    ['+/a', 'x/a', true],
    ['#', 'x', true],
    ['a', 'b', false],
    ['a/b', 'a', false],
  ] as const) {
    expect(topicMatches(filter, topic), `${filter} ${topic}`).toBe(expected);
  }
  expect(['#', 'a/+/b', 'a/#'].every(isFilter)).toBe(true);
  expect(['', 'a#', '#/a', 'a+/b'].some(isFilter)).toBe(false);
});

test('snippets survive what is in them', () => {
  const nasty = '{"text":"it\'s \\"quoted\\" $HOME `x` \\\\ \\u00e9 é 🦀\\n"}';
  const parts = {
    method: 'PUT',
    url: 'http://127.0.0.1:8080/a b?x=1&y=2',
    headers: { 'content-type': 'application/json' },
    body: nasty,
  };
  // The shell, JavaScript and Python each read back what was meant.
  const echoed = execFileSync('sh', ['-c', `printf %s ${shellQuoted(nasty)}`]).toString();
  expect(echoed).toBe(nasty);
  expect(curl(parts)).toContain('curl -i -X PUT ');
  expect(curl({ ...parts, method: 'POST' })).not.toContain('-X');
  const js = javascript(parts)
    .replace('await fetch(', 'keep(')
    .replace(/\nconsole[^]*/, '');
  const keep = new Function(`${js.replace('const response = keep(', 'return [').replace(/\);$/, '];')}`) as () => [
    string,
    { body: string; method: string },
  ];
  expect(keep()).toMatchObject([parts.url, { body: nasty, method: 'PUT' }]);
  const py = python(parts)
    .replace('import json, urllib.request', 'import sys, urllib.request')
    .replace(/\nwith [^]*/, '\nsys.stdout.buffer.write(request.data)');
  expect(execFileSync('python3', ['-c', py]).toString()).toBe(nasty);
});

test('a filled-in form becomes a request', () => {
  const { operations } = readApi({
    paths: {
      '/api/v1/things/{id}/{*rest}': {
        get: {
          operationId: 'get-thing',
          'x-fpesa': { action: 'call' },
          parameters: [
            { name: 'id', in: 'path', required: true, schema: { type: 'string' } },
            { name: 'rest', in: 'path', required: true, schema: { type: 'string' } },
            { name: 'limit', in: 'query', schema: { type: 'integer' } },
            { name: 'tag', in: 'query', schema: { type: 'array', items: { type: 'string' } } },
            { name: 'X-Team', in: 'header', schema: { type: 'string' } },
            { name: 'Idempotency-Key', in: 'header', schema: { type: 'string' } },
          ],
        },
      },
    },
  });
  const operation = operations[0];
  if (operation === undefined) throw new Error('no operation');
  expect(operation).toMatchObject({ id: 'get-thing', method: 'GET', action: 'call' });
  // What the page sets by itself is not asked for.
  expect(operation.parameters.map((one) => one.name)).toEqual(['id', 'rest', 'limit', 'tag', 'X-Team']);
  expect(unfilled(operation, new Map())).toEqual(['id', 'rest']);
  const given = new Map<string, Value>([
    ['path/id', 'a/b'],
    ['path/rest', 'x/y z'],
    ['query/limit', new Num('5')],
    ['query/tag', ['a', 'b&c']],
    ['header/X-Team', 'blue'],
  ]);
  expect(target(operation, given)).toBe('/api/v1/things/a%2Fb/x/y%20z?limit=5&tag=a&tag=b%26c');
  expect(headers(operation, given)).toEqual({ 'X-Team': 'blue' });
});

test('where history is follows from the table', () => {
  const route = (method: string, path: string, queue: string) => ({
    id: path,
    method,
    path,
    summary: null,
    deprecated: false,
    action: 'call' as const,
    exchange: '',
    key: queue,
    queues: [queue],
  });
  const table = {
    workers: [{ name: 'past', kind: 'history', queue: 'h' }],
    routes: [route('GET', '/other', 'x'), route('GET', '/notes', 'h'), route('GET', '/notes/{id}', 'h')],
  } as unknown as TableDocument;
  expect(historyPlaces(table)).toEqual({ list: '/notes', one: '/notes/{id}' });
  expect(historyPlaces({ ...table, workers: [] })).toEqual({});
  const queue = { type: 'quorum', there: true, consumers: 1 } as QueueEntry;
  expect(health(queue)).toBe('good');
  expect(health({ ...queue, consumers: 0 })).toBe('idle');
  expect(health({ ...queue, there: false })).toBe('missing');
  expect(health({ ...queue, there: false, type: 'rpc' })).toBe('idle');
  expect(health({ ...queue, there: null })).toBe('unknown');
});

test('the pulses of several gateways add up', () => {
  const pulse = (time: number[], ok: number[], calls: number[][], sessions: (number | null)[]): PulseDocument => ({
    instance: String(time[0]),
    every: 5,
    time,
    requests: { '2xx': ok },
    publishes: { routed: ok },
    calls: { bounds_ms: [1, 10, 100], counts: calls },
    sessions,
  });
  const all = combined([
    pulse([5, 10], [5, 10], [[], [0, 10, 0, 0]], [1, 2]),
    pulse([10, 15], [20, 5], [[0, 10, 0, 0], []], [null, null]),
  ]);
  expect(all.time).toEqual([5, 10, 15]);
  expect(all.requests['2xx']).toEqual([1, 6, 1]);
  expect(all.sessions).toEqual([1, 2, null]);
  expect(all.latency.p50).toEqual([null, 5.5, null]);
  expect(combined([]).time).toEqual([]);
});

test('quantiles lie within their buckets', () => {
  const bounds = [1, 2, 4, 8];
  fc.assert(
    fc.property(
      fc.array(fc.nat(50), { minLength: 5, maxLength: 5 }),
      fc.double({ min: 0.01, max: 1 }),
      (counts, share) => {
        const value = quantile(bounds, counts, share);
        if (counts.every((count) => count === 0)) return expect(value).toBeNull();
        const total = counts.reduce((sum, count) => sum + count, 0);
        let below = 0;
        const bucket = counts.findIndex((count) => (below += count) >= total * share && count > 0);
        expect(value).toBeGreaterThanOrEqual(bucket === 0 ? 0 : (bounds[bucket - 1] ?? 8));
        expect(value).toBeLessThanOrEqual(bounds[bucket] ?? 8);
      },
    ),
  );
});

test('a message on one line', () => {
  expect(preview('{"text":"a\\n b","topic":"t","n":1}')).toEqual({ text: 'a b', rest: '{"n":1}' });
  expect(preview('{"a":1}')).toEqual({ text: '{"a":1}' });
  expect(preview('"x"')).toEqual({ text: 'x' });
  expect(preview(undefined)).toEqual({ text: '' });
});

test('just after an event is one microsecond later', () => {
  const at = (time: string) => justAfter({ id: '', time, subject: '', type: '', source: '' });
  expect(at('2026-11-23T18:27:58.123456Z')).toBe('2026-11-23T18:27:58.123457Z');
  expect(at('2026-11-23T18:27:58.999999Z')).toBe('2026-11-23T18:27:59.000000Z');
});
