// Whether AsyncAPI documents are valid: `check.js FILE…` ends with 1 when one is not.

import { readFileSync } from 'node:fs';
import { Parser } from '@asyncapi/parser';

const ERROR = 0;
let failed = false;
for (const name of process.argv.slice(2)) {
  const { document, diagnostics } = await new Parser().parse(readFileSync(name, 'utf8'));
  for (const { severity, path, message, code } of diagnostics) {
    if (severity !== ERROR) continue;
    failed = true;
    console.error(`${name}: ${path.join('/')}: ${code}: ${message}`);
  }
  if (document === undefined) failed = true;
}
process.exit(failed ? 1 : 0);
