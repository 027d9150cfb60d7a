/**
 * Two oracles that talk with each other: they show that the oracle is a TCP.
 * @module
 */
import type { Random } from '../../support/random.ts';
import { SEGMENT_ARRIVES } from './arrives.ts';
import { OPEN } from './calls.ts';
import { notationOf, type Segment } from './segment.ts';
import { type Choices, closedTcb, type Tcb } from './tcb.ts';
import { RETRANSMISSION_TIMEOUT } from './timeouts.ts';

/** Takes the segments away that were sent since the last call. */
export function sentBy(tcb: Tcb): readonly Segment[] {
  return tcb.emissions.splice(0).map(({ segment }) => segment);
}

/** The one segment that was sent. @throws Error there was none, or there were more */
export function onlySentBy(tcb: Tcb): Segment {
  const sent = sentBy(tcb);
  if (sent.length !== 1) throw new Error(`${sent.length} segments: ${sent.map(notationOf)}`);
  return sent[0]!;
}

/** A TCB in ESTABLISHED that sends from `send` on and receives from `receive` on; and its peer. */
export function establishedPair(
  send: number,
  receive: number,
  choices: Partial<Choices> = {}
): readonly [Tcb, Tcb] {
  const a = closedTcb({ ...choices, selectIss: () => send - 1 });
  const b = closedTcb({ ...choices, selectIss: () => receive - 1 });
  OPEN(b, 'passive');
  OPEN(a, 'active');
  while (a.emissions.length + b.emissions.length > 0) exchange(a, b);
  for (const { signals } of [a, b]) signals.length = 0;
  return [a, b];
}

/** Delivers all that both have sent up to now. */
export function exchange(a: Tcb, b: Tcb): void {
  const [fromA, fromB] = [sentBy(a), sentBy(b)];
  for (const segment of fromA) SEGMENT_ARRIVES(b, segment);
  for (const segment of fromB) SEGMENT_ARRIVES(a, segment);
}

/** A network between two TCBs that loses, duplicates and reorders. */
export class LossyNetwork {
  readonly #random: Random;
  readonly #loss: number;
  readonly #ends: readonly [Tcb, Tcb];
  readonly #underWay: { readonly to: Tcb; readonly segment: Segment }[] = [];

  constructor(random: Random, loss: number, ends: readonly [Tcb, Tcb]) {
    this.#random = random;
    this.#loss = loss;
    this.#ends = ends;
  }

  /** Delivers or loses one of the segments under way; if there is none, both retransmission timers expire. */
  step(): void {
    const [a, b] = this.#ends;
    for (const segment of sentBy(a)) this.#underWay.push({ to: b, segment });
    for (const segment of sentBy(b)) this.#underWay.push({ to: a, segment });
    if (this.#underWay.length === 0) {
      for (const end of this.#ends) RETRANSMISSION_TIMEOUT(end);
      return;
    }
    // Most arrive in order.
    const index = this.#random.chance(0.7) ? 0 : this.#random.below(this.#underWay.length);
    const next = this.#underWay[index]!;
    if (!this.#random.chance(0.1)) this.#underWay.splice(index, 1);
    if (!this.#random.chance(this.#loss)) SEGMENT_ARRIVES(next.to, next.segment);
  }
}
