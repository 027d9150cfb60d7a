/**
 * What permits allow. The permits for one service allow the same in all realms where it is exposed, so that is kept once.
 * @module
 */
import type { PortRange } from '../base/port-range.ts';
import type { IpPrefix } from '../base/prefix.ts';
import type { Permit } from './plan.ts';

/** What a permit allows, to whom. Two that say the same are one object. */
export interface Allowance {
  readonly ports: readonly PortRange[];
  /** Undefined: every source of the realm. */
  readonly clients: readonly IpPrefix[] | undefined;
  /** A list of this one alone, for all who have no other one. */
  readonly alone: readonly Allowance[];
}

export class Allowances {
  readonly #all = new Map<string, HeldAllowance>();

  /** Returns what a permit allows, and keeps it until `drop` has been called as often as `hold`. */
  hold({ ports, clients }: Permit): Allowance {
    const text = textOf(ports, clients);
    let allowance = this.#all.get(text);
    if (allowance === undefined) {
      const alone: Allowance[] = [];
      allowance = { ports, clients, alone, holders: 0 };
      alone.push(allowance);
      this.#all.set(text, allowance);
    }
    allowance.holders++;
    return allowance;
  }

  drop(allowance: Allowance): void {
    if (--(allowance as HeldAllowance).holders === 0) {
      this.#all.delete(textOf(allowance.ports, allowance.clients));
    }
  }
}

interface HeldAllowance extends Allowance {
  holders: number;
}

function textOf(ports: Permit['ports'], clients: Permit['clients']): string {
  return clients === undefined ? ports.join() : `${ports.join()} ${clients.join()}`;
}
