/**
 * Packets and control messages that flow over a tunnel while something is done to it.
 * @module
 */
import { expect, vi } from 'vitest';
import type { Tunnel } from '../../src/tunnel/index.ts';
import { packetOf, record } from './packets.ts';

/** One direction. */
class Direction {
  readonly #from: Tunnel;
  readonly #received: Map<number, number[]>;
  readonly #sent = new Map<number, number[]>();
  readonly #messages: unknown[] = [];
  #sentMessages = 0;
  #number = 0;

  constructor(from: Tunnel, to: Tunnel, flows: number) {
    this.#from = from;
    for (let flow = 0; flow < flows; flow++) this.#sent.set(flow, []);
    this.#received = record(to);
    to.on('control', (message) => this.#messages.push(message));
  }

  send(): void {
    this.#number++;
    for (const [flow, numbers] of this.#sent) {
      const packet = packetOf(flow, this.#number, 1_400);
      if (this.#from.sendPacket(packet, 0, packet.length)) numbers.push(this.#number);
    }
    this.#from.flush();
    if (this.#number % 3 === 0 && this.#from.sendControl(this.#sentMessages)) this.#sentMessages++;
  }

  /** Everything has come that was sent, once; messages in order. */
  async check(): Promise<void> {
    const count = (numbers: Map<number, number[]>) =>
      [...numbers.values()].reduce((sum, { length }) => sum + length, 0);
    await vi.waitFor(() => {
      expect(count(this.#received)).toBe(count(this.#sent));
      expect(this.#messages).toHaveLength(this.#sentMessages);
    });
    for (const [flow, numbers] of this.#sent) {
      expect(numbers.length, 'nothing was sent').toBeGreaterThan(0);
      expect([...(this.#received.get(flow) ?? [])].sort((a, b) => a - b)).toEqual(numbers);
    }
    expect(this.#messages).toEqual(Array.from({ length: this.#sentMessages }, (_, i) => i));
  }
}

/** Runs `work` while traffic flows both ways, and sees that all of it has come. */
export async function whileTrafficFlows(
  [one, other]: readonly [Tunnel, Tunnel],
  flows: number,
  work: () => Promise<unknown>
): Promise<void> {
  const directions = [new Direction(one, other, flows), new Direction(other, one, flows)];
  let isRunning = true;
  const running = (async () => {
    for (let after = 0; after < 20; after += isRunning ? 0 : 1) {
      for (const direction of directions) direction.send();
      await new Promise(setImmediate);
    }
  })();
  try {
    await work();
  } finally {
    isRunning = false;
    await running;
  }
  for (const direction of directions) await direction.check();
}
