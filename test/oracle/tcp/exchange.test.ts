/** Two oracles exchange data over a bad network: the oracle is a TCP by itself. */
import { describe, expect, test } from 'vitest';
import { Random } from '../../support/random.ts';
import { ABORT, CLOSE, OPEN, RECEIVE, SEND } from './calls.ts';
import { LossyNetwork } from './peers.ts';
import { type Choices, closedTcb, type Tcb } from './tcb.ts';
import { USER_TIMEOUT } from './timeouts.ts';

const SEEDS: readonly number[] = Array.from({ length: 60 }, (_, index) => index + 1);

describe('two oracles over a network that loses, duplicates and reorders', () => {
  test.each(SEEDS)('deliver all octets in order and close, seed %i', (seed) => {
    const random = new Random(seed);
    const users = [new User(random), new User(random)] as const;
    open(random, users);
    const [a, b] = users;
    const network = new LossyNetwork(random, random.next() * 0.4, [a.tcb, b.tcb]);
    let steps = 0;
    while (!(a.isDone && b.isDone)) {
      if (++steps > 50_000) throw new Error(`seed ${seed}: ${a.tcb.state}, ${b.tcb.state}`);
      network.step();
      random.pick(users).act();
      // The end in LAST-ACK may have lost the last ACK, while the other one is gone already: its user timeout.
      for (const [end, other] of [users, [b, a] as const]) {
        if (other.tcb.state === 'CLOSED' && end.tcb.state === 'LAST-ACK') USER_TIMEOUT(end.tcb);
      }
    }
    for (const user of users) user.receiveAll();
    expect(a.received).toEqual(b.sent);
    expect(b.received).toEqual(a.sent);
    expect(a.tcb.signals).not.toContain('connection reset');
    expect(b.tcb.signals).not.toContain('connection reset');
  });

  test.each(SEEDS.slice(0, 20))('abort: the other end is told, seed %i', (seed) => {
    const random = new Random(seed);
    const users = [new User(random), new User(random)] as const;
    open(random, users);
    const [a, b] = users;
    const network = new LossyNetwork(random, 0.2, [a.tcb, b.tcb]);
    const isTold = () => b.tcb.state === 'CLOSED' && b.tcb.signals.includes('connection reset');
    for (let steps = 0; !isTold(); steps++) {
      if (steps > 5_000) throw new Error(`seed ${seed}: ${a.tcb.state}, ${b.tcb.state}`);
      if (a.tcb.state === 'ESTABLISHED' && steps > 50) ABORT(a.tcb);
      // Text for which no connection is there: CLOSED answers by a RST.
      if (a.tcb.state === 'CLOSED' && b.tcb.state === 'ESTABLISHED') SEND(b.tcb, [1]);
      network.step();
    }
    expect(a.tcb.state).toBe('CLOSED');
  });
});

/** Opens in one of three ways; the numbers begin shortly in front of where they wrap around. */
function open(random: Random, [a, b]: readonly [User, User]): void {
  if (random.chance(0.7)) OPEN(b.tcb, 'passive');
  OPEN(a.tcb, 'active');
  if (b.tcb.state === 'CLOSED') OPEN(b.tcb, 'active');
}

/** Sends some octets in pieces when the connection is there, receives now and then, and closes after all is sent. */
class User {
  readonly tcb: Tcb;
  readonly sent: readonly number[];
  readonly received: number[] = [];
  readonly #random: Random;
  #accepted = 0;

  constructor(random: Random) {
    this.#random = random;
    this.sent = [...random.bytes(random.below(3000))];
    const choices: Partial<Choices> = {
      selectIss: () => 2 ** 32 - 1 - random.below(2000),
      // More than a window field can say with the largest shift count below.
      receiveBuffer: random.between(8, 3000),
      mss: random.between(1, 600),
      isRfc5961: random.chance(0.7),
      usesTimestamps: random.chance(0.5),
      windowScale: random.chance(0.5) ? random.below(3) : undefined,
      keepsTextOfSyn: random.chance(0.5),
    };
    this.tcb = closedTcb(choices);
  }

  get isDone(): boolean {
    return this.tcb.state === 'CLOSED' || this.tcb.state === 'TIME-WAIT';
  }

  act(): void {
    this.#receive(this.#random.below(500));
    const { state, isCloseQueued } = this.tcb;
    if ((state !== 'ESTABLISHED' && state !== 'CLOSE-WAIT') || isCloseQueued) return;
    if (this.#accepted < this.sent.length) {
      const piece = this.sent.slice(this.#accepted, this.#accepted + this.#random.between(1, 900));
      if (SEND(this.tcb, piece) === 'ok') this.#accepted += piece.length;
    } else {
      CLOSE(this.tcb);
    }
  }

  receiveAll(): void {
    this.#receive(Infinity);
  }

  #receive(count: number): void {
    const octets = RECEIVE(this.tcb, count);
    if (typeof octets !== 'string') this.received.push(...octets);
  }
}
