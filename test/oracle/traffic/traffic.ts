/**
 * Random packets for a random plan: what the plan allows, what it just does not allow, and mutations of
 * both. Each kind has a name and a weight, so that a test can see that it had them all. What comes one
 * after another (requests and replies, fragments) is mixed with the rest, and with time.
 * @module
 */

import type { Random } from '../../support/random.ts';
import type { World } from '../plans.ts';
import { ERRORS, REFUSED_ERRORS } from './error.ts';
import type { Draft } from './flow.ts';
import { FRAGMENTS } from './fragment.ts';
import { MUTATIONS } from './mutation.ts';
import { FAULTY, REFUSED } from './refused.ts';
import { SESSIONS } from './session.ts';

export interface Packet extends Draft {
  readonly kind: string;
  /** How much time passes before it comes. */
  readonly afterMs: number;
}

/** The packets that come to one translator. */
export class Traffic {
  readonly #random: Random;
  /** What is still to come, each in its order. */
  readonly #begun: Packet[][] = [];

  constructor(random: Random) {
    this.#random = random;
  }

  /** Draws a packet, or takes the next one of what has begun. */
  next(world: World): Packet {
    const random = this.#random;
    if (this.#begun.length > MOST_AT_ONCE || (this.#begun.length > 0 && random.chance(0.5))) {
      const at = random.below(this.#begun.length);
      const packet = this.#begun[at]!.shift()!;
      if (this.#begun[at]!.length === 0) this.#begun.splice(at, 1);
      return packet;
    }
    const [first, ...others] = this.#draw(world);
    if (others.length > 0) this.#begun.push(others);
    return first!;
  }

  /** Draws a packet, and draws again if this plan has no flows of its kind. */
  #draw(world: World): Packet[] {
    const random = this.#random;
    for (;;) {
      let ticket = random.next() * TOTAL_WEIGHT;
      const chosen = KINDS.find(({ weight }) => {
        ticket -= weight;
        return ticket < 0;
      });
      if (chosen === undefined) continue;
      const drawn = chosen.draw(random, world) ?? [];
      const drafts = 'length' in drawn ? drawn : [drawn];
      if (drafts.length === 0) continue;
      return drafts.map((draft) => ({
        kind: chosen.kind,
        afterMs: random.pick([0, 0, random.below(20)]),
        ...draft,
      }));
    }
  }
}

const MOST_AT_ONCE = 40;

const KINDS = [SESSIONS, ERRORS, REFUSED, FAULTY, REFUSED_ERRORS, FRAGMENTS, MUTATIONS]
  .flatMap((group) => Object.entries(group))
  .map(([kind, [weight, draw]]) => ({ kind, weight, draw }));

/** Kinds whose packets may have several faults at once. */
export const MUTATED_KINDS: ReadonlySet<string> = new Set(Object.keys(MUTATIONS));

/** The names of all kinds that are drawn. */
export const PACKET_KINDS: readonly string[] = KINDS.map(({ kind }) => kind);

const TOTAL_WEIGHT = KINDS.reduce((sum, { weight }) => sum + weight, 0);
