/**
 * Counts of what a long random run has seen.
 * @module
 */

/** Counts by name. */
export class Tally {
  readonly #counts: Map<string, number>;
  #total = 0;

  constructor(names: readonly string[]) {
    this.#counts = new Map(names.map((name) => [name, 0]));
  }

  add(name: string): void {
    this.#counts.set(name, this.of(name) + 1);
    this.#total++;
  }

  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  share(name: string): number {
    return this.of(name) / this.#total;
  }

  /** The names that were counted fewer times. */
  below(least: number): string[] {
    return [...this.#counts].filter(([, count]) => count < least).map(([name]) => name);
  }
}
