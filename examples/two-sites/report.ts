/**
 * Runs the steps of the scene, tells them as they happen, and sums them up.
 * @module
 */

export interface StepResult {
  readonly name: string;
  readonly ok: boolean;
  /** True when the step was left out; `detail` says why. */
  readonly skipped?: true;
  readonly detail: string;
}

/** Thrown by a step that this machine has not the means for. */
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

  /** One line for the reader; nothing with `--json`, where standard output is one object. */
  say(line = ''): void {
    (this.#isJson ? process.stderr : process.stdout).write(`${line}\n`);
  }

  /** Runs one step. What it returns is the detail shown; a step that throws has failed. */
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

  /** The table at the end, and with `--json` the object on the last line. */
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
 * How long after a revocation data may still come, in ms: milliseconds where the machine has nothing else to do; this
 * tells it from a tunnel that was left open.
 */
export const LATEST_MS = 5_000;

/** Asks again and again until there is an answer; what it asks may throw meanwhile. */
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
