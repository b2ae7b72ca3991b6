// A request written for a terminal, for JavaScript and for Python.

export interface RequestParts {
  method: string;
  /** Absolute. */
  url: string;
  headers: Record<string, string>;
  body?: string;
}

export const shellQuoted = (text: string): string =>
  /^[A-Za-z0-9_./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;

export function curl({ method, url, headers, body }: RequestParts): string {
  const parts = [`curl -i ${shellQuoted(url)}`];
  if (method !== (body === undefined ? 'GET' : 'POST')) parts[0] = `curl -i -X ${method} ${shellQuoted(url)}`;
  for (const [name, value] of Object.entries(headers)) parts.push(`-H ${shellQuoted(`${name}: ${value}`)}`);
  // `--data-raw`: a body that begins with @ is no file's name.
  if (body !== undefined) parts.push(`--data-raw ${shellQuoted(body)}`);
  return parts.join(' \\\n  ');
}

export function javascript({ method, url, headers, body }: RequestParts): string {
  const options: string[] = [];
  if (method !== 'GET') options.push(`  method: '${method}',`);
  if (Object.keys(headers).length > 0) {
    const lines = Object.entries(headers).map(([name, value]) => `    ${quoted(name)}: ${quoted(value)},`);
    options.push('  headers: {', ...lines, '  },');
  }
  if (body !== undefined) options.push(`  body: ${quoted(body)},`);
  const given = options.length > 0 ? `, {\n${options.join('\n')}\n}` : '';
  return `const response = await fetch(${quoted(url)}${given});\nconsole.log(response.status, await response.json());`;
}

export function python({ method, url, headers, body }: RequestParts): string {
  const given = [`    ${JSON.stringify(url)},`];
  if (method !== 'GET') given.push(`    method=${JSON.stringify(method)},`);
  if (Object.keys(headers).length > 0) {
    const lines = Object.entries(headers).map(
      ([name, value]) => `        ${JSON.stringify(name)}: ${pyString(value)},`,
    );
    given.push('    headers={', ...lines, '    },');
  }
  if (body !== undefined) given.push(`    data=${pyString(body)}.encode(),`);
  return `import json, urllib.request

request = urllib.request.Request(
${given.join('\n')}
)
with urllib.request.urlopen(request) as response:
    print(response.status, json.load(response))`;
}

/** A string of JavaScript in the quotes that need the fewest escapes; U+2028 and its like are none of its line ends. */
function quoted(text: string): string {
  const inner = JSON.stringify(text).slice(1, -1);
  return `'${inner.replaceAll('\\"', '"').replaceAll("'", "\\'")}'`;
}

/** JSON's escapes are Python's, but for surrogate pairs, which JSON.stringify leaves as they are. */
const pyString = (text: string): string => {
  const inner = JSON.stringify(text).slice(1, -1);
  return inner.includes("'") || !inner.includes('\\"') ? `"${inner}"` : `'${inner.replaceAll('\\"', '"')}'`;
};
