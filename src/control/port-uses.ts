/**
 * Which ports of a service the clients of each translator may use. The service's side admits the clients of the others
 * by these ports, however many sites they are in.
 * @module
 */
import type { PortRange } from '../base/port-range.ts';
import type { Permit } from '../translator/index.ts';

export class PortUses {
  /** Keyed by the text of the ports; the number of permits of each translator. */
  readonly #lists = new Map<
    string,
    { readonly ports: Permit['ports']; readonly counts: Map<number, number> }
  >();

  /** Counts the permits of a clients' site, once more or once less. */
  count(translator: number, permits: readonly Permit[], by: 1 | -1): void {
    for (const { ports } of permits) {
      const text = ports.join();
      const list = this.#lists.get(text) ?? { ports, counts: new Map<number, number>() };
      const count = (list.counts.get(translator) ?? 0) + by;
      if (count > 0) list.counts.set(translator, count);
      else list.counts.delete(translator);
      if (list.counts.size > 0) this.#lists.set(text, list);
      else this.#lists.delete(text);
    }
  }

  get isEmpty(): boolean {
    return this.#lists.size === 0;
  }

  /** Returns each list of ports that clients of other translators may use. */
  besides(translator: number): (readonly PortRange[])[] {
    return [...this.#lists.values()].flatMap(({ ports, counts }) =>
      counts.size > 1 || !counts.has(translator) ? [ports] : []
    );
  }
}
