/**
 * Which presences a data plane has moved packets for since it was last asked. It costs the packets nothing:
 * the counters of the paths are read, once in a while and some at a time.
 * @module
 */
import { checkFunction } from '../base/option-check.ts';
import type { PathStatus } from '../translator/index.ts';

/** A presence that was used. */
export interface PresenceUse {
  readonly realm: string;
  readonly address: string;
}

/** For one translator, in the process where it is. */
export class PresenceUses {
  readonly #paths: () => Iterable<PathStatus>;
  /** Packets that the paths of a presence had counted the last time. */
  #counted: ReadonlyMap<string, number> = new Map();
  #asked: Promise<unknown> = Promise.resolve();

  /**
   * @param paths all paths of the translator, as `PacketTranslator.paths` gives them
   * @throws {ApiMisuseError} if it is no function.
   */
  constructor(paths: () => Iterable<PathStatus>) {
    this.#paths = checkFunction('paths', paths);
  }

  /**
   * Returns the presences whose count has changed since the last call: both the one that a path leads to,
   * and the one that its packets come from. A path that has gone meanwhile counts as a change too. The event
   * loop has its turn after every thousand paths.
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
    let read = 0;
    for (const { ingress, destination, egress, newSource, packets } of this.#paths()) {
      add(ingress, destination, packets);
      add(egress, newSource, packets);
      if (++read % PATHS_PER_TURN === 0) await new Promise(setImmediate);
    }
    const before = this.#counted;
    this.#counted = counted;
    const changed = [...counted].filter(([key, packets]) => before.get(key) !== packets);
    const gone = [...before].filter(([key]) => !counted.has(key));
    return [...changed, ...gone].map(([key]) => {
      const [realm, address] = key.split(' ') as [string, string];
      return { realm, address };
    });
  }
}

const PATHS_PER_TURN = 1000;
