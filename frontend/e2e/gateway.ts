// The real executable as a process, on a free port, with a table and a data folder of its own.

import { spawn, type ChildProcess } from 'node:child_process';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const root = resolve(import.meta.dirname, '../..');
const executable = process.env.FPESA_BIN ?? join(root, 'target/debug/fpesa');

export class Gateway {
  readonly folder = mkdtempSync(join(tmpdir(), 'fpesa-e2e-'));
  url = '';
  private child: ChildProcess | undefined;

  /** On the shipped table, changed by `edit`. */
  constructor(edit: (table: string) => string = (table) => table) {
    cpSync(join(root, 'schemas'), join(this.folder, 'schemas'), { recursive: true });
    writeFileSync(join(this.folder, 'routes.yaml'), edit(readFileSync(join(root, 'routes.yaml'), 'utf8')));
  }

  /** Changes the table while it runs. */
  edit(change: (table: string) => string): void {
    const file = join(this.folder, 'routes.yaml');
    writeFileSync(file, change(readFileSync(file, 'utf8')));
  }

  /** Starts it, on the same port as before when it ran already. */
  async start(): Promise<void> {
    const listen = this.url === '' ? '127.0.0.1:0' : new URL(this.url).host;
    const files = ['--routes', join(this.folder, 'routes.yaml'), '--data-dir', join(this.folder, 'data')];
    const args = ['up', '--listen', listen, ...files, '--log', 'error'];
    const child = spawn(executable, args, { cwd: this.folder, stdio: ['ignore', 'pipe', 'inherit'] });
    this.child = child;
    this.url = await new Promise<string>((found, failed) => {
      child.once('error', failed);
      child.once('exit', (code) => failed(new Error(`fpesa ended with ${code} before it listened`)));
      createInterface({ input: child.stdout }).on('line', (line) => {
        const address = /^listening on (http:\S+)$/.exec(line)?.[1];
        if (address !== undefined) found(address);
      });
    });
  }

  async stop(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const child = this.child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill(signal);
    await ended;
  }

  async post(body: unknown): Promise<Response> {
    const headers = { 'content-type': 'application/json' };
    const text = typeof body === 'string' ? body : JSON.stringify(body);
    return fetch(`${this.url}/api/v1/messages`, { method: 'POST', headers, body: text });
  }

  /** Many, some at a time; each must be kept. */
  async postAll(bodies: unknown[], atOnce = 20): Promise<void> {
    for (let from = 0; from < bodies.length; from += atOnce) {
      const answers = await Promise.all(bodies.slice(from, from + atOnce).map((body) => this.post(body)));
      for (const answer of answers) if (answer.status !== 202) throw new Error(`status ${answer.status}`);
    }
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
