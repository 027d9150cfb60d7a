/**
 * Which fault begins when, by a seeded generator. Faults overlap, but for a few seconds at most all machines, or a majority
 * of etcd, are out of use: connections of clients survive that, as TCP tries again.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import type { Random } from '../support/random.ts';
import type { Fault, Faults } from './faults.ts';
import type { Violations } from './violations.ts';

export class Schedule {
  readonly #random: Random;
  readonly #faults: Faults;
  readonly #violations: Violations;
  readonly #machines: number;
  readonly #members: number;
  readonly #startMs: number = performance.now();
  readonly #active = new Map<Fault, Promise<void>>();
  readonly #lines: string[] = [];
  /** How many faults there were, by their first word. */
  readonly counts: Map<string, number> = new Map();

  constructor(
    random: Random,
    faults: Faults,
    violations: Violations,
    sizes: { readonly machines: number; readonly members: number }
  ) {
    this.#random = random;
    this.#faults = faults;
    this.#violations = violations;
    this.#machines = sizes.machines;
    this.#members = sizes.members;
  }

  /** What has happened so far, one line each. */
  get log(): readonly string[] {
    return this.#lines;
  }

  note(text: string): void {
    const seconds = ((performance.now() - this.#startMs) / 1000).toFixed(1).padStart(7);
    this.#lines.push(`${seconds} s  ${new Date().toISOString().slice(11, 23)}  ${text}`);
  }

  /** Lets things happen for some time, and then heals all of it. */
  async phase(durationMs: number): Promise<void> {
    const endMs = performance.now() + durationMs;
    const healing = new AbortController();
    while (performance.now() < endMs && this.#violations.texts.length === 0) {
      const fault = this.#faults.draw(this.#random);
      const share = this.#random.next();
      const isBold = this.#random.chance(0.15);
      const gapMs = this.#random.between(100, 1500);
      const lastsMs = Math.min(LEAST_MS + share * fault.mostMs, fault.mostMs);
      const isMuch = this.#isTooMuch(fault);
      if (this.#isFree(fault) && (!isMuch || isBold)) {
        const forMs = isMuch ? Math.min(lastsMs, BOLD_MS) : lastsMs;
        const running = this.#run(fault, forMs, healing.signal)
          .catch((error: Error) => this.#violations.add(`${fault.text}: ${error.message}`))
          .finally(() => this.#active.delete(fault));
        this.#active.set(fault, running);
      }
      await delay(gapMs);
    }
    this.note('all is healed from here on');
    healing.abort();
    await Promise.all(this.#active.values());
  }

  async #run(fault: Fault, forMs: number, healing: AbortSignal): Promise<void> {
    const { text, mostMs, begin, end } = fault;
    const [word] = text.split(' ') as [string];
    this.counts.set(word, (this.counts.get(word) ?? 0) + 1);
    this.note(mostMs === 0 ? text : `${text} for ${Math.round(forMs)} ms`);
    await begin();
    if (end === undefined) return;
    await delay(forMs, undefined, { signal: healing }).catch(() => {});
    await end();
    this.note(`  over: ${text}`);
  }

  #isFree({ takes }: Fault): boolean {
    return [...this.#active.keys()].every((each) => each.takes !== takes);
  }

  /** Whether no machine, or no majority of etcd, would be left. */
  #isTooMuch(fault: Fault): boolean {
    const all = [...this.#active.keys(), fault];
    const machines = new Set(all.flatMap(({ machine }) => machine ?? []));
    const members = new Set(all.flatMap(({ member }) => member ?? []));
    const isMachine = fault.machine !== undefined && machines.size >= this.#machines;
    const isMember = fault.member !== undefined && members.size >= (this.#members + 1) / 2;
    return isMachine || isMember;
  }
}

const LEAST_MS = 500;
/** How long a fault lasts that leaves too little. */
const BOLD_MS = 3000;
