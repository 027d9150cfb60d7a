/**
 * Numbered requests at a steady pace, and their outcome.
 * @module
 */

export interface TrafficReport {
  readonly sent: number;
  readonly answered: number;
  /** Answers that arrived more than once. */
  readonly doubled: number;
  readonly p50Ms: number;
  readonly p99Ms: number;
  /** The longest time until an answer, or until the next request. */
  readonly worstMs: number;
  /** How late a timer of this process was at most: so long the machine had no time for it. */
  readonly lateMs: number;
}

/** Sends one request every `INTERVAL_MS`, as long as at most `WINDOW` requests are unanswered. */
export class Traffic {
  readonly #send: (number: number) => boolean;
  readonly #sentAtMs = new Map<number, number>();
  #tookMs: number[] = [];
  #next = 0;
  #first = 0;
  #doubled = 0;
  #timer: NodeJS.Timeout | undefined;
  #lastMs = 0;
  #stallMs = 0;
  #tickedMs = 0;
  #lateMs = 0;

  /** @param send returns whether the request was sent */
  constructor(send: (number: number) => boolean) {
    this.#send = send;
  }

  begin(): void {
    this.#sentAtMs.clear();
    this.#tookMs = [];
    this.#doubled = 0;
    this.#stallMs = 0;
    this.#lateMs = 0;
    this.#first = this.#next;
    this.resume();
  }

  resume(): void {
    this.#lastMs = performance.now();
    this.#tickedMs = this.#lastMs;
    this.#timer = setInterval(() => this.#tick(), INTERVAL_MS);
  }

  /** Sends no more, and waits for outstanding answers, at most `DEADLINE_MS`. */
  async pause(): Promise<void> {
    clearInterval(this.#timer);
    const end = performance.now() + DEADLINE_MS;
    while (this.#sentAtMs.size > 0 && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    }
  }

  /** Ends after at least `atLeast` requests. */
  async end(atLeast: number): Promise<TrafficReport> {
    const end = performance.now() + DEADLINE_MS;
    while (this.#next - this.#first < atLeast && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, INTERVAL_MS));
    }
    await this.pause();
    const sorted = this.#tookMs.sort((a, b) => a - b);
    const at = (share: number) => sorted[Math.ceil(share * sorted.length) - 1] ?? Infinity;
    return {
      sent: this.#next - this.#first,
      answered: sorted.length,
      doubled: this.#doubled,
      p50Ms: at(0.5),
      p99Ms: at(0.99),
      worstMs: Math.max(at(1), this.#stallMs),
      lateMs: this.#lateMs,
    };
  }

  onAnswer(number: number): void {
    const sentAtMs = this.#sentAtMs.get(number);
    if (sentAtMs === undefined) {
      this.#doubled++;
      return;
    }
    this.#sentAtMs.delete(number);
    this.#tookMs.push(performance.now() - sentAtMs);
  }

  #tick(): void {
    const nowMs = performance.now();
    this.#lateMs = Math.max(this.#lateMs, nowMs - this.#tickedMs - INTERVAL_MS);
    this.#tickedMs = nowMs;
    if (this.#sentAtMs.size >= WINDOW) return;
    if (!this.#send(this.#next)) return;
    this.#stallMs = Math.max(this.#stallMs, nowMs - this.#lastMs);
    this.#lastMs = nowMs;
    this.#sentAtMs.set(this.#next++, nowMs);
  }
}

const INTERVAL_MS = 4;
const WINDOW = 64;
const DEADLINE_MS = 20_000;
