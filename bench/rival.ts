/**
 * The C rival: compiled into its own directory, and run as a child process.
 * @module
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import type { Arrival, Scene } from './scene.ts';

/** The result for a frame, as `translator-main.c` writes it. */
export interface RivalResult {
  readonly verdict: number;
  /** Index of the realm: 0 is `near`, 1 is `far`. Valid iff the verdict is 0, Forward. */
  readonly egress: number;
  readonly frame: Uint8Array;
}

/** The rival's verdict on packets that it does not handle. */
export const SLOW = 13;

/** Compiled once; `close` deletes it. */
export class RivalProgram {
  /** First line of what the compiler says about itself. */
  readonly compiler: string;
  readonly #directory: string;
  #sceneCount = 0;

  private constructor(compiler: string, sources: string) {
    this.compiler = compiler;
    this.#directory = mkdtempSync(join(tmpdir(), 'vp-bench-'));
    const source = join(sources, 'translator-main.c');
    execFileSync('cc', ['-O2', '-o', this.#binary, source], { stdio: 'inherit' });
  }

  /**
   * Returns undefined where there is no C compiler.
   *
   * @param sources the directory of the C files
   */
  static compile(sources: string): RivalProgram | undefined {
    let version: string;
    try {
      version = execFileSync('cc', ['--version'], { encoding: 'utf8' });
    } catch {
      return undefined;
    }
    return new RivalProgram(version.split('\n')[0]!.trim(), sources);
  }

  start(scene: Scene): Rival {
    return new Rival(spawn(this.#binary, [this.#write(scene.encode())], RIVAL_STDIO));
  }

  /** Translates the frames, in this order, with a translator that knows all paths of the scene. */
  translate(scene: Scene, arrivals: readonly Arrival[]): RivalResult[] {
    const files = [this.#write(scene.encode()), this.#write(encodeArrivals(arrivals))];
    const output = execFileSync(this.#binary, files, { maxBuffer: 2 ** 30 });
    return decodeResults(output);
  }

  close(): void {
    rmSync(this.#directory, { recursive: true });
  }

  get #binary(): string {
    return join(this.#directory, 'translator');
  }

  #write(bytes: Uint8Array): string {
    const name = join(this.#directory, `scene-${this.#sceneCount++}`);
    writeFileSync(name, bytes);
    return name;
  }
}

/** One scene, on which the rival takes its turns. */
export class Rival {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  }

  /** Runs for the time given; returns ns of CPU time per translated packet. */
  async run(leastMs: number): Promise<number> {
    this.#child.stdin!.write(`${leastMs}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error('the C rival has stopped');
    return Number(value);
  }

  close(): void {
    this.#child.stdin!.end();
  }
}

function encodeArrivals(arrivals: readonly Arrival[]): Uint8Array {
  return Buffer.concat(
    arrivals.map(({ realm, frame }) => {
      const record = Buffer.alloc(8 + padded(frame.length));
      record.writeUInt32LE(realm === 'near' ? 0 : 1, 0);
      record.writeUInt32LE(frame.length, 4);
      record.set(frame, 8);
      return record;
    })
  );
}

function decodeResults(output: Buffer): RivalResult[] {
  const results: RivalResult[] = [];
  for (let at = 0; at < output.length; ) {
    const length = output.readUInt32LE(at + 8);
    results.push({
      verdict: output.readUInt32LE(at),
      egress: output.readUInt32LE(at + 4),
      frame: output.subarray(at + 12, at + 12 + length),
    });
    at += 12 + padded(length);
  }
  return results;
}

function padded(length: number): number {
  return (length + 3) & ~3;
}

const RIVAL_STDIO = { stdio: ['pipe', 'pipe', 'inherit'] as ['pipe', 'pipe', 'inherit'] };
