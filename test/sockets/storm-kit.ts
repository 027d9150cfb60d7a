/**
 * What the storms share: simulated time that passes with the rounds of the event loop, and a look at what is left.
 */
import { setImmediate as nextRound } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import type { SocketStack } from '../../src/sockets/stack.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** Whether the long form runs. */
export const FULL: boolean = process.env.VP_FULL === '1';

/** A clock of which a millisecond passes in each round of the event loop, while somebody waits. */
export class RoundClock extends FakeClock {
  /** Lets time pass until the promise is settled. */
  async during<T>(work: Promise<T>): Promise<T> {
    let isOver = false;
    const done = work.finally(() => {
      isOver = true;
    });
    done.catch(() => {});
    const endMs = this.monotonicMs() + MAX_WAIT_MS;
    while (!isOver) {
      if (this.monotonicMs() > endMs) throw new Error('nothing has come of it in ten minutes');
      this.advance(1);
      await nextRound();
    }
    return done;
  }

  /** Lets time pass until the condition holds. Returns how many ms that took. */
  async until(isTrue: () => boolean, limitMs: number = MAX_WAIT_MS): Promise<number> {
    const sinceMs = this.monotonicMs();
    while (!isTrue() && this.monotonicMs() - sinceMs < limitMs) {
      this.advance(1);
      await nextRound();
    }
    return this.monotonicMs() - sinceMs;
  }

  /** Lets this many ms pass in steps, so that what is due can act between them. */
  async pass(ms: number, stepMs: number = 100): Promise<void> {
    for (let passed = 0; passed < ms; passed += stepMs) {
      this.advance(stepMs);
      for (let round = 0; round < 4; round++) await nextRound();
    }
  }
}

/** Everything that a stack can have left. Each value of a stack at rest is 0. */
export function restOf(stack: SocketStack): Record<string, number> {
  const { tcp, udp, icmp } = stack;
  return {
    ...tcp.sizes,
    used: tcp.memory.used,
    usedSmall: tcp.memory.usedSmall,
    deadline: tcp.deadline === Number.POSITIVE_INFINITY ? 0 : tcp.deadline,
    udp: udp.size,
    echoes: icmp.waiting,
  };
}

export const AT_REST: Readonly<Record<string, number>> = {
  connections: 0,
  halfOpen: 0,
  timeWait: 0,
  timers: 0,
  used: 0,
  usedSmall: 0,
  deadline: 0,
  udp: 0,
  echoes: 0,
};

/** Counts the objects that nobody but a test could still reach. */
export class Remains {
  readonly #refs: WeakRef<object>[] = [];

  add<T extends object>(what: T): T {
    this.#refs.push(new WeakRef(what));
    return what;
  }

  /** How many are still alive after the garbage was collected. */
  async count(): Promise<number> {
    for (let round = 0; round < 5; round++) {
      // A WeakRef keeps its target until the turn ends in which it was made or read.
      await nextRound();
      collect();
    }
    return this.#refs.filter((ref) => ref.deref() !== undefined).length;
  }
}

function makeCollector(): () => void {
  setFlagsFromString('--expose-gc');
  return runInNewContext('gc') as () => void;
}

/** Nobody waits longer: a test that fails must end. */
const MAX_WAIT_MS = 600_000;

const collect: () => void = makeCollector();
