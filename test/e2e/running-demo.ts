/**
 * The demo (`npm run demo`) as a child process.
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'vitest';
import { processesWith } from '../../examples/two-sites/local-place.ts';

export const REPOSITORY: string = fileURLToPath(new URL('../..', import.meta.url));
/** The arguments of Node that run it. */
export const DEMO: readonly string[] = ['--import', 'tsx', 'examples/two-sites/main.ts', '--json'];

/** A demo that is ended before its end. */
export class RunningDemo {
  output = '';
  readonly #directory = mkdtempSync(join(tmpdir(), 'vp-scene-'));
  readonly #mark = `VP_TEST_MARK=${randomUUID()}`;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown[]>;
  #check = (): void => {};

  constructor(args: readonly string[]) {
    // tsx keeps what it has compiled there, and each of the demo's programs would compile everything again.
    const compiled = `tsx-${process.geteuid!()}`;
    mkdirSync(join(tmpdir(), compiled), { recursive: true });
    symlinkSync(join(tmpdir(), compiled), join(this.#directory, compiled));
    this.#child = spawn(process.execPath, [...DEMO, ...args], {
      cwd: REPOSITORY,
      env: { ...process.env, TMPDIR: this.#directory, VP_TEST_MARK: this.#mark.split('=')[1] },
      stdio: ['ignore', 'ignore', 'pipe'],
    });
    this.#exited = once(this.#child, 'exit');
    this.#child.stderr!.on('data', (chunk: Buffer) => {
      this.output += chunk;
      this.#check();
    });
  }

  get processes(): number[] {
    return processesWith(this.#mark);
  }

  /** Waits for a text in the output, or for the end of the demo. */
  async printed(text: string): Promise<void> {
    const isPrinted = new Promise<void>((resolve) => {
      this.#check = () => this.output.includes(text) && resolve();
      this.#check();
    });
    await Promise.race([isPrinted, this.#exited]);
    expect(this.output).toContain(text);
  }

  /** Ends it by a signal, with all of its processes and files. */
  async end(signal: NodeJS.Signals, code: number): Promise<void> {
    this.#child.kill(signal);
    expect(await this.#exited, this.output).toEqual([code, null]);
    expect(this.processes).toEqual([]);
    expect(readdirSync(this.#directory).filter((name) => !name.startsWith('tsx-'))).toEqual([]);
  }

  cleanUp(): void {
    for (const pid of this.processes) process.kill(pid, 'SIGKILL');
    rmSync(this.#directory, { recursive: true, force: true, maxRetries: 5 });
  }
}
