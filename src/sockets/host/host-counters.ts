/**
 * The counters of what listens on this host for one stack, added up by what it is. What is closed still counts.
 * @module
 */

/** Numbers, and numbers by a code. */
export type Counters = Readonly<Record<string, number | Readonly<Record<string, number>>>>;

interface CounterSource {
  readonly counters: object;
}

export class HostCounters {
  /** What it is, for each that is open. */
  readonly #parts = new Map<CounterSource, string>();
  /** The sums of those that were closed. */
  readonly #closed: Record<string, number> = {};

  /** @param part what it is, for example `forward` */
  add(part: string, source: CounterSource): void {
    this.#parts.set(source, part);
  }

  /** Its counters do not change any more. */
  delete(source: CounterSource): void {
    const part = this.#parts.get(source);
    if (part === undefined) return;
    this.#parts.delete(source);
    addTo(this.#closed, part, source.counters as Counters);
  }

  /** Returns the sums, by names such as `forward.accepted` and `forward.failed.ECONNREFUSED`. */
  get sums(): Readonly<Record<string, number>> {
    const sums = { ...this.#closed };
    for (const [source, part] of this.#parts) addTo(sums, part, source.counters as Counters);
    return sums;
  }
}

function addTo(sums: Record<string, number>, part: string, counters: Counters): void {
  for (const [name, count] of Object.entries(counters)) {
    const key = `${part}.${name}`;
    if (typeof count === 'number') sums[key] = (sums[key] ?? 0) + count;
    else addTo(sums, key, count);
  }
}
