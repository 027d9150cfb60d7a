/**
 * Runs the steps of the scene, prints them, and prints a table at the end.
 * @module
 */

export interface StepResult {
  readonly name: string;
  readonly ok: boolean;
  /** True when the step was left out; `detail` says why. */
  readonly skipped?: true;
  readonly detail: string;
}

/** Thrown by a step that this machine cannot run. */
export class LeftOut extends Error {}

export class Report {
  readonly results: StepResult[] = [];
  readonly #isJson: boolean;

  constructor(isJson: boolean) {
    this.#isJson = isJson;
  }

  get ok(): boolean {
    return this.results.length > 0 && this.results.every(({ ok }) => ok);
  }

  /** Prints a line; with `--json` to standard error, because standard output is one object then. */
  say(line = ''): void {
    (this.#isJson ? process.stderr : process.stdout).write(`${line}\n`);
  }

  /** Runs one step and prints the detail that it returns; a step that throws has failed. */
  async step(name: string, title: string, run: () => Promise<string>): Promise<void> {
    this.say();
    this.say(`== ${title}`);
    try {
      const detail = await run();
      this.results.push({ name, ok: true, detail });
      this.say(`   ok: ${detail}`);
    } catch (error) {
      const { message } = error as Error;
      if (error instanceof LeftOut) {
        this.results.push({ name, ok: true, skipped: true, detail: message });
        this.say(`   LEFT OUT: ${message}`);
      } else {
        this.results.push({ name, ok: false, detail: message });
        this.say(`   FAILED: ${message}`);
      }
    }
  }

  /** Prints the table and, with `--json`, the object. */
  close(): void {
    this.say();
    const width = Math.max(...this.results.map(({ name }) => name.length));
    for (const { name, ok, skipped, detail } of this.results) {
      const mark = skipped ? 'left out' : ok ? 'shown' : 'FAILED';
      this.say(`${name.padEnd(width)}  ${mark.padEnd(8)}  ${detail.split('\n')[0]}`);
    }
    if (this.#isJson) {
      process.stdout.write(`${JSON.stringify({ ok: this.ok, steps: this.results })}\n`);
    }
  }
}

export function expect(condition: boolean, otherwise: string): asserts condition {
  if (!condition) throw new Error(otherwise);
}

/**
 * How long data may still arrive after a revocation, in ms. On an idle machine it is a few milliseconds; this limit
 * only excludes a tunnel that was left open.
 */
export const LATEST_MS = 5_000;

/** Calls `ask` again and again until it returns an answer; before that it may throw. */
export async function eventually<T>(
  what: string,
  ask: () => Promise<T | undefined> | T | undefined,
  timeoutMs = 60_000
): Promise<T> {
  const deadline = performance.now() + timeoutMs;
  let last = '';
  for (;;) {
    try {
      const answer = await ask();
      if (answer !== undefined) return answer;
    } catch (error) {
      last = `: ${(error as Error).message}`;
    }
    if (performance.now() > deadline) throw new Error(`${what}: not within ${timeoutMs} ms${last}`);
    await new Promise((resolve) => setTimeout(resolve, 25));
  }
}
