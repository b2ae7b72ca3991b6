// A JSON Schema read for a form: references followed, what must be asked for and what it begins with. Checking is the
// gateway's: what is here only chooses how to ask.

import { isMembers, lift, Num, same, type Value } from '../value';

export interface Schema {
  [keyword: string]: unknown;
}

/** What references are looked up in, the schema's own root last. */
export type Roots = readonly unknown[];

export type Kind =
  'const' | 'enum' | 'variants' | 'object' | 'array' | 'string' | 'number' | 'integer' | 'boolean' | 'null' | 'any';

const isSchema = (value: unknown): value is Schema =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** What a `#/…` reference names. */
function lookUp(reference: string, roots: Roots): unknown {
  if (!reference.startsWith('#')) return undefined;
  const steps = decodeURIComponent(reference.slice(1))
    .split('/')
    .slice(1)
    .map((one) => one.replaceAll('~1', '/').replaceAll('~0', '~'));
  for (const root of roots) {
    let at: unknown = root;
    for (const name of steps) {
      at = typeof at === 'object' && at !== null ? (at as Record<string, unknown>)[name] : undefined;
    }
    if (at !== undefined) return at;
  }
  return undefined;
}

/** The schema with its references followed and its `allOf` joined; `true` and what can't be found allow anything. */
export function resolve(schema: unknown, roots: Roots, hops = 0): Schema {
  if (!isSchema(schema) || hops > 32) return {};
  let out: Schema = schema;
  if (typeof schema.$ref === 'string') {
    const { $ref, ...beside } = schema;
    out = join(resolve(lookUp($ref as string, roots), roots, hops + 1), beside);
  }
  if (Array.isArray(out.allOf)) {
    const { allOf, ...beside } = out;
    out = (allOf as unknown[]).map((part) => resolve(part, roots, hops + 1)).reduce<Schema>(join, {});
    out = join(out, beside);
  }
  return out;
}

function join(a: Schema, b: Schema): Schema {
  const both: Schema = { ...a, ...b };
  if (isSchema(a.properties) && isSchema(b.properties)) both.properties = { ...a.properties, ...b.properties };
  if (Array.isArray(a.required) && Array.isArray(b.required)) {
    both.required = [...new Set([...(a.required as string[]), ...(b.required as string[])])];
  }
  return both;
}

/** How a resolved schema is asked for. */
export function kindOf(schema: Schema): Kind {
  if ('const' in schema) return 'const';
  if (Array.isArray(schema.enum)) return 'enum';
  if (Array.isArray(schema.oneOf) || Array.isArray(schema.anyOf)) return 'variants';
  if (Array.isArray(schema.type)) return schema.type.length === 1 ? (schema.type[0] as Kind) : 'variants';
  if (typeof schema.type === 'string') return schema.type as Kind;
  if ('properties' in schema || 'required' in schema) return 'object';
  if ('items' in schema || 'prefixItems' in schema) return 'array';
  if ('pattern' in schema || 'minLength' in schema || 'maxLength' in schema || 'format' in schema) return 'string';
  if ('minimum' in schema || 'maximum' in schema || 'multipleOf' in schema) return 'number';
  return 'any';
}

export interface Variant {
  title: string;
  schema: Schema;
}

/** What a value may be instead: of `oneOf`, `anyOf` or a list of types, each joined with what is said beside them. */
export function variants(schema: Schema, roots: Roots): Variant[] {
  const { oneOf, anyOf, type, ...beside } = schema;
  const of = (oneOf ?? anyOf) as unknown[] | undefined;
  if (of === undefined) {
    return (type as string[]).map((one) => ({ title: one, schema: { ...beside, type: one } }));
  }
  // What describes the whole is shown above the choice, not again in each.
  const base = Object.fromEntries(
    Object.entries(beside).filter(([keyword]) => !['title', 'description', 'default'].includes(keyword)),
  );
  if (type !== undefined) base.type = type;
  return of.map((part, at) => {
    const resolved = resolve(join(base, resolve(part, roots)), roots);
    return { title: titleOf(resolved, roots) ?? `Choice ${at + 1}`, schema: resolved };
  });
}

/** A variant's name: its title, or the constant that tells it from the others, or its type. */
function titleOf(schema: Schema, roots: Roots): string | undefined {
  if (typeof schema.title === 'string') return schema.title;
  if ('const' in schema) return String(schema.const);
  for (const [name, property] of Object.entries(properties(schema))) {
    const resolved = resolve(property, roots);
    if ('const' in resolved) return `${name}: ${String(resolved.const)}`;
  }
  const required = requiredOf(schema);
  if (kindOf(schema) === 'object' && required.length > 0) return `with ${required.join(', ')}`;
  return typeof schema.type === 'string' ? schema.type : undefined;
}

export const properties = (schema: Schema): Record<string, unknown> =>
  isSchema(schema.properties) ? schema.properties : {};

export const requiredOf = (schema: Schema): string[] =>
  Array.isArray(schema.required) ? schema.required.filter((name): name is string => typeof name === 'string') : [];

/** The schema of an array's item. */
export function itemSchema(schema: Schema, at: number): unknown {
  const first = (Array.isArray(schema.prefixItems) ? schema.prefixItems : []) as unknown[];
  return at < first.length ? first[at] : (schema.items ?? {});
}

function typeFits(type: string, value: Value): boolean {
  switch (type) {
    case 'object':
      return isMembers(value);
    case 'array':
      return Array.isArray(value);
    case 'integer':
      return value instanceof Num && Number.isInteger(Number(value.text));
    case 'number':
      return value instanceof Num;
    case 'null':
      return value === null;
    default:
      return typeof value === type;
  }
}

/** Whether a value looks like one of the schema's: enough to tell variants apart. */
export function fits(schema: Schema, value: Value, roots: Roots, depth = 0): boolean {
  if ('const' in schema) return same(lift(schema.const), value);
  if (Array.isArray(schema.enum)) return schema.enum.some((one) => same(lift(one), value));
  const types = Array.isArray(schema.type) ? (schema.type as string[]) : [schema.type];
  if (typeof types[0] === 'string' && !types.some((type) => typeFits(String(type), value))) return false;
  if (isMembers(value)) {
    if (!requiredOf(schema).every((name) => name in value)) return false;
    const known = properties(schema);
    if (schema.additionalProperties === false && Object.keys(value).some((name) => !(name in known))) return false;
    if (depth > 4) return true;
    return Object.entries(value).every(
      ([name, member]) => !(name in known) || fits(resolve(known[name], roots), member, roots, depth + 1),
    );
  }
  return true;
}

/** Which variant a value is of; of those that it may become when it fits none, the first of its type. */
export function chosen(all: readonly Variant[], value: Value | undefined, roots: Roots): number {
  if (value === undefined) return 0;
  const fitting = all.findIndex((variant) => fits(variant.schema, value, roots));
  if (fitting >= 0) return fitting;
  // Half filled in: what the discriminating constants say.
  const marked = all.findIndex(
    (variant) =>
      isMembers(value) &&
      Object.entries(properties(variant.schema)).some(([name, property]) => {
        const member = value[name];
        const resolved = resolve(property, roots);
        return member !== undefined && 'const' in resolved && same(lift(resolved.const), member);
      }),
  );
  if (marked >= 0) return marked;
  return Math.max(
    0,
    all.findIndex((variant) => typeof variant.schema.type !== 'string' || typeFits(variant.schema.type, value)),
  );
}

/** What a form begins with: defaults and constants, and nothing that the user would have to take back. */
export function initial(schema: unknown, roots: Roots, required = true, depth = 0): Value | undefined {
  const resolved = resolve(schema, roots);
  if ('default' in resolved) return lift(resolved.default);
  if (!required || depth > 8) return undefined;
  switch (kindOf(resolved)) {
    case 'const':
      return lift(resolved.const);
    case 'variants':
      return initial(variants(resolved, roots)[0]?.schema, roots, true, depth + 1);
    case 'object': {
      const needed = requiredOf(resolved);
      const entries = Object.entries(properties(resolved)).flatMap(([name, property]) => {
        const value = initial(property, roots, needed.includes(name), depth + 1);
        return value === undefined ? [] : [[name, value] as const];
      });
      return Object.fromEntries(entries);
    }
    case 'array': {
      const least = typeof resolved.minItems === 'number' ? resolved.minItems : 0;
      return Array.from({ length: Math.min(least, 20) }, (_, at) => blank(itemSchema(resolved, at), roots, depth + 1));
    }
    case 'null':
      return null;
    default:
      return undefined;
  }
}

/** A value of the schema's kind for something that must be there, such as an array's new item. */
export function blank(schema: unknown, roots: Roots, depth = 0): Value {
  const begun = initial(schema, roots, true, depth);
  if (begun !== undefined) return begun;
  const resolved = resolve(schema, roots);
  switch (kindOf(resolved)) {
    case 'enum':
      return lift((resolved.enum as unknown[])[0]);
    case 'number':
    case 'integer':
      return new Num(String(typeof resolved.minimum === 'number' ? resolved.minimum : 0));
    case 'boolean':
      return false;
    case 'any':
      return null;
    default:
      return '';
  }
}

const FORMATS: Record<string, string> = {
  'date-time': '2026-01-31T12:00:00Z',
  date: '2026-01-31',
  time: '12:00:00Z',
  duration: 'PT1H',
  email: 'somebody@example.org',
  hostname: 'example.org',
  ipv4: '192.0.2.1',
  ipv6: '2001:db8::1',
  uri: 'https://example.org/',
  uuid: '0193f1c2-7d3a-7c3e-9d4e-000000000001',
};

/** A plausible value: its example where it has one, else what it must have. */
export function sample(schema: unknown, roots: Roots, depth = 0): Value {
  const resolved = resolve(schema, roots);
  if (Array.isArray(resolved.examples) && resolved.examples.length > 0) return lift(resolved.examples[0]);
  if ('example' in resolved) return lift(resolved.example);
  if ('default' in resolved) return lift(resolved.default);
  if (depth > 8) return null;
  switch (kindOf(resolved)) {
    case 'variants':
      return sample(variants(resolved, roots)[0]?.schema, roots, depth + 1);
    case 'object': {
      const needed = requiredOf(resolved);
      const wanted = Object.entries(properties(resolved)).filter(([name]) => needed.includes(name));
      return Object.fromEntries(wanted.map(([name, property]) => [name, sample(property, roots, depth + 1)]));
    }
    case 'array': {
      const least = Math.max(1, typeof resolved.minItems === 'number' ? resolved.minItems : 1);
      return Array.from({ length: Math.min(least, 20) }, (_, at) => sample(itemSchema(resolved, at), roots, depth + 1));
    }
    case 'string': {
      const format = typeof resolved.format === 'string' ? FORMATS[resolved.format] : undefined;
      const least = typeof resolved.minLength === 'number' ? resolved.minLength : 0;
      const most = typeof resolved.maxLength === 'number' ? resolved.maxLength : Infinity;
      return format ?? 'Hello'.padEnd(Math.min(least, 4096), '!').slice(0, most);
    }
    case 'number':
    case 'integer': {
      const least = [resolved.minimum, resolved.exclusiveMinimum].find((one) => typeof one === 'number');
      const more = typeof resolved.exclusiveMinimum === 'number' ? 1 : 0;
      const step = typeof resolved.multipleOf === 'number' ? resolved.multipleOf : undefined;
      if (step !== undefined) return new Num(String(Math.ceil(((least as number | undefined) ?? step) / step) * step));
      return new Num(String(least === undefined ? 1 : (least as number) + more));
    }
    default:
      return blank(resolved, roots, depth + 1);
  }
}
