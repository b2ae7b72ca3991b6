// JSON as text: members and items are cut out and folded for reading without ever becoming numbers of JavaScript, so
// that 12345678901234567890 stays what was sent.

/** Where the value that begins at `from` ends (the index after it). The text must be valid JSON. */
function end(text: string, from: number): number {
  const first = text[from];
  if (first === '"') {
    let at = from + 1;
    while (text[at] !== '"') at += text[at] === '\\' ? 2 : 1;
    return at + 1;
  }
  if (first === '{' || first === '[') {
    let depth = 0;
    let at = from;
    do {
      const c = text[at];
      if (c === '"') {
        at = end(text, at);
        continue;
      }
      if (c === '{' || c === '[') depth += 1;
      if (c === '}' || c === ']') depth -= 1;
      at += 1;
    } while (depth > 0);
    return at;
  }
  let at = from;
  while (at < text.length && !/[\s,\]}]/.test(text[at] ?? '')) at += 1;
  return at;
}

function blank(text: string, from: number): number {
  let at = from;
  while (at < text.length && /\s/.test(text[at] ?? '')) at += 1;
  return at;
}

/** The raw texts of an object's members, by name. */
export function members(text: string): Map<string, string> {
  const found = new Map<string, string>();
  let at = blank(text, blank(text, 0) + 1);
  while (at < text.length && text[at] === '"') {
    const nameEnd = end(text, at);
    const name = JSON.parse(text.slice(at, nameEnd)) as string;
    const from = blank(text, blank(text, nameEnd) + 1);
    const to = end(text, from);
    found.set(name, text.slice(from, to));
    at = blank(text, blank(text, to) + 1);
  }
  return found;
}

/** The raw texts of an array's items. */
export function items(text: string): string[] {
  const found: string[] = [];
  let at = blank(text, blank(text, 0) + 1);
  while (at < text.length && text[at] !== ']') {
    const to = end(text, at);
    found.push(text.slice(at, to));
    at = blank(text, to);
    if (text[at] === ',') at = blank(text, at + 1);
  }
  return found;
}

/** The same JSON with one member or item a line; numbers and strings are left as they are. */
export function folded(text: string, indent = ''): string {
  const from = blank(text, 0);
  const inner = `${indent}  `;
  if (text[from] === '{') {
    const all = [...members(text.slice(from))];
    if (all.length === 0) return '{}';
    return `{\n${all.map(([name, value]) => `${inner}${JSON.stringify(name)}: ${folded(value, inner)}`).join(',\n')}\n${indent}}`;
  }
  if (text[from] === '[') {
    const all = items(text.slice(from));
    if (all.length === 0) return '[]';
    return `[\n${all.map((value) => inner + folded(value, inner)).join(',\n')}\n${indent}]`;
  }
  return text.slice(from, end(text, from));
}
