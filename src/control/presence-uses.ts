/**
 * Finds the presences for which a data plane has moved packets since the last call. This costs the packets nothing: it
 * reads the counters of the paths, now and then and in batches.
 * @module
 */
import { checkFunction } from '../base/option-check.ts';
import type { PathStatus } from '../translator/index.ts';

/** A presence that was used. */
export interface PresenceUse {
  readonly realm: string;
  readonly address: string;
}

/** Reads the paths of one translator in this process. */
export class PresenceUses {
  readonly #paths: () => Iterable<PathStatus>;
  /** Keyed by presence: how many packets its paths had counted at the last call. */
  #counted: ReadonlyMap<string, number> = new Map();
  #asked: Promise<unknown> = Promise.resolve();

  /**
   * @param paths all paths of the translator, as `PacketTranslator.paths` gives them
   * @throws {ApiMisuseError} if it is not a function.
   */
  constructor(paths: () => Iterable<PathStatus>) {
    this.#paths = checkFunction('paths', paths);
  }

  /**
   * Returns the presences whose count has changed since the last call. A path counts for the presence that it leads to
   * and for the one that its packets come from; a path that is gone is a change too. The event loop runs after every
   * thousand paths or presences.
   */
  since(): Promise<PresenceUse[]> {
    const asked = this.#asked.then(() => this.#read());
    this.#asked = asked.catch(() => {});
    return asked;
  }

  async #read(): Promise<PresenceUse[]> {
    const counted = new Map<string, number>();
    const add = (realm: string, address: string, packets: number): void => {
      const key = `${realm} ${address}`;
      counted.set(key, (counted.get(key) ?? 0) + packets);
    };
    let taken = 0;
    const isOver = (): boolean => ++taken % PER_TURN === 0;
    for (const { ingress, destination, egress, newSource, packets } of this.#paths()) {
      add(ingress, destination, packets);
      add(egress, newSource, packets);
      if (isOver()) await new Promise(setImmediate);
    }
    const before = this.#counted;
    this.#counted = counted;
    const uses: PresenceUse[] = [];
    const use = (key: string): void => {
      const [realm, address] = key.split(' ') as [string, string];
      uses.push({ realm, address });
    };
    for (const [key, packets] of counted) {
      if (before.get(key) !== packets) use(key);
      if (isOver()) await new Promise(setImmediate);
    }
    for (const key of before.keys()) {
      if (!counted.has(key)) use(key);
      if (isOver()) await new Promise(setImmediate);
    }
    return uses;
  }
}

const PER_TURN = 1000;
