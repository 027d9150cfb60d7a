/**
 * Limits the lines that strangers can cause: anybody who reaches the port can have a handshake refused,
 * as often as they like.
 * @module
 */

/** Refusals that got no line of their own. */
export interface Suppressed {
  readonly count: number;
  readonly codes: Readonly<Record<string, number>>;
}

/** Admits so many in a minute, which begins with its first refusal, and sums up the others when it is over. */
export class RefusalLimit {
  readonly #max: number;
  readonly #after: After;
  readonly #sumUp: (suppressed: Suppressed) => void;
  #admitted = 0;
  #codes = new Map<string, number>();
  #cancel: (() => void) | undefined;
  #isStopped = false;

  constructor(max: number, after: After, sumUp: (suppressed: Suppressed) => void) {
    this.#max = max;
    this.#after = after;
    this.#sumUp = sumUp;
  }

  /** Whether the refusal gets a line; if not, it is counted. */
  admit(code: string): boolean {
    this.#startMinute();
    if (this.#admitted < this.#max) {
      this.#admitted++;
      return true;
    }
    this.#count(code.slice(0, MAX_CODE_LENGTH), 1);
    return false;
  }

  /** Takes back what could not be written, for the end of the next minute. */
  restore({ codes }: Suppressed): void {
    for (const [code, count] of Object.entries(codes)) this.#count(code, count);
    this.#startMinute();
  }

  /** Ends the minute now. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#admitted = 0;
    if (this.#codes.size === 0) return;
    const codes = this.#codes;
    this.#codes = new Map();
    const count = [...codes.values()].reduce((sum, each) => sum + each, 0);
    this.#sumUp({ count, codes: Object.fromEntries(codes) });
  }

  /** Sets no timer any more. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }

  #startMinute(): void {
    if (this.#isStopped) return;
    this.#cancel ??= this.#after(MINUTE_MS, () => this.flush());
  }

  #count(code: string, count: number): void {
    const isKnown = this.#codes.has(code) || this.#codes.size < MAX_CODES;
    const key = isKnown ? code : OTHERS;
    this.#codes.set(key, (this.#codes.get(key) ?? 0) + count);
  }
}

/** Calls once after `delayMs`, unless the function it returns is called before. */
export type After = (delayMs: number, callback: () => void) => () => void;

/** Keeps no process alive. */
export const systemAfter: After = (delayMs, callback) => {
  const timer = setTimeout(callback, delayMs).unref();
  return () => clearTimeout(timer);
};

const MINUTE_MS = 60_000;
/** Codes are this program's words; should a stranger's be among them, they take no more room than this. */
const MAX_CODES = 32;
const MAX_CODE_LENGTH = 64;
const OTHERS = 'others';
