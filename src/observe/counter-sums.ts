/**
 * Sums of counters over processes of which each may be replaced by a new one that begins at 0. A sum never falls, as
 * Prometheus requires of a counter.
 * @module
 */

export class CounterSums {
  /** Keyed by subject, then by the number of the process. */
  readonly #subjects = new Map<string, Part[]>();

  /**
   * Returns the sums of the counters of a subject.
   *
   * @param processes what each process counts now; `pid` is 0 while a process is down. The counters of a subject are
   *   always the same, in the same order.
   */
  sum(
    subject: string,
    processes: readonly { readonly pid: number; readonly counts: readonly number[] }[]
  ): number[] {
    // Nothing replaces this process.
    if (processes.length === 1) return [...processes[0]!.counts];
    let parts = this.#subjects.get(subject);
    if (parts === undefined) {
      parts = processes.map(({ pid, counts }) => ({
        pid,
        before: counts.map(() => 0),
        last: counts.map(() => 0),
      }));
      this.#subjects.set(subject, parts);
    }
    const sums: number[] = [];
    for (const [number, { pid, counts }] of processes.entries()) {
      const part = parts[number]!;
      if (pid !== 0 && pid !== part.pid) {
        part.pid = pid;
        part.before = part.before.map((count, i) => count + part.last[i]!);
      }
      if (pid !== 0) part.last = counts;
      for (const [i, count] of part.before.entries()) {
        sums[i] = (sums[i] ?? 0) + count + part.last[i]!;
      }
    }
    return sums;
  }

  /** Forgets all subjects but these. */
  keep(subjects: ReadonlySet<string>): void {
    for (const subject of this.#subjects.keys()) {
      if (!subjects.has(subject)) this.#subjects.delete(subject);
    }
  }
}

/** The counters of one process. */
interface Part {
  pid: number;
  /** The counts of the processes before it, as they were when they were last asked. */
  before: readonly number[];
  last: readonly number[];
}
