// The real executable as a process, on a free port and a data folder of its own.

import { spawn, type ChildProcess } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { createInterface } from 'node:readline';

const root = resolve(import.meta.dirname, '../..');
const executable = process.env.FPESA_BIN ?? join(root, 'target/debug/fpesa');

export class Gateway {
  readonly folder = mkdtempSync(join(tmpdir(), 'fpesa-e2e-'));
  url = '';
  private child: ChildProcess | undefined;

  /** Starts it, on the same port as before when it ran already. */
  async start(): Promise<void> {
    const listen = this.url === '' ? '127.0.0.1:0' : new URL(this.url).host;
    const args = ['up', '--listen', listen, '--data-dir', join(this.folder, 'data'), '--log', 'warn'];
    const child = spawn(executable, args, { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] });
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
    if (child === undefined || child.exitCode !== null) return;
    const ended = new Promise((done) => child.once('exit', done));
    child.kill(signal);
    await ended;
  }

  async post(body: unknown): Promise<Response> {
    const headers = { 'content-type': 'application/json' };
    return fetch(`${this.url}/api/v1/messages`, { method: 'POST', headers, body: JSON.stringify(body) });
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}
