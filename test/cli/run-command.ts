/**
 * Runs the command in this process.
 * @module
 */
import { EventEmitter } from 'node:events';
import { Readable, Writable } from 'node:stream';
import { type ExitCode, type Io, runProgram } from '../../src/cli/index.ts';

/** Surroundings that a test makes and looks at. */
export class TestIo implements Io {
  readonly stdin: Readable;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly signals: EventEmitter = new EventEmitter();
  /** What has been written. */
  out = '';
  err = '';
  readonly stdout: Writable;
  readonly stderr: Writable;
  readonly #onText = new Set<() => void>();

  constructor({
    input = '',
    env = {},
  }: { readonly input?: string; readonly env?: Io['env'] } = {}) {
    this.stdin = Readable.from([Buffer.from(input)]);
    this.env = env;
    this.stdout = this.#sink((text) => {
      this.out += text;
    });
    this.stderr = this.#sink((text) => {
      this.err += text;
    });
  }

  /** Waits for a line on standard error that matches. */
  async logged(pattern: RegExp): Promise<string> {
    for (;;) {
      const line = this.err.split('\n').find((each) => pattern.test(each));
      if (line !== undefined) return line;
      await new Promise<void>((resolve) => this.#onText.add(resolve));
    }
  }

  #sink(use: (text: string) => void): Writable {
    return new Writable({
      decodeStrings: false,
      write: (chunk, _, done) => {
        use(String(chunk));
        for (const resolve of this.#onText) resolve();
        this.#onText.clear();
        done();
      },
    });
  }
}

/** How a command has ended, and what it wrote. */
export interface Outcome {
  readonly code: ExitCode;
  readonly out: string;
  readonly err: string;
}

/** Runs a command to its end. */
export async function runCommand(
  args: readonly string[],
  io: TestIo = new TestIo()
): Promise<Outcome> {
  const code = await runProgram(args, io);
  return { code, out: io.out, err: io.err };
}
