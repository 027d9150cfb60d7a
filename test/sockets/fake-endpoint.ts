/**
 * A protocol of a stack that a test plays: it sends the frames that the test queues, and notes what it is told.
 * @module
 */
import type { PacketHeader } from '../../src/packet/index.ts';
import type { StackEndpoint } from '../../src/sockets/stack-device.ts';

export class FakeEndpoint implements StackEndpoint {
  onReady: () => void = () => {};
  onEvents: () => void = () => {};
  onDeadline: () => void = () => {};
  deadline: number = Number.POSITIVE_INFINITY;
  /** The time that `advance` has set last. */
  nowMs: number = Number.NaN;
  readonly received: Buffer[] = [];
  /** Each call but `receive`, in order. */
  readonly calls: string[] = [];
  /** Runs in `receive`. */
  onFrame: (frame: Buffer) => void = () => {};
  /** Runs in `takeEvents`. */
  onTake: () => void = () => {};
  readonly #queue: Buffer[] = [];
  #isReady = false;

  /** Queues frames for `read`. */
  send(...frames: Uint8Array[]): void {
    this.#queue.push(...frames.map((frame) => Buffer.from(frame)));
    if (this.#isReady) return;
    this.#isReady = true;
    this.onReady();
  }

  get waiting(): number {
    return this.#queue.length;
  }

  advance(nowMs: number): void {
    this.nowMs = nowMs;
  }

  receive(buffer: Buffer, vnet: number, header: PacketHeader): void {
    const frame = Buffer.from(buffer.subarray(vnet, header.end));
    this.received.push(frame);
    this.onFrame(frame);
  }

  read(buffer: Buffer, at: number): number {
    const frame = this.#queue.shift();
    if (frame === undefined) {
      this.#isReady = false;
      return 0;
    }
    frame.copy(buffer, at);
    return frame.length;
  }

  refused(): void {
    this.calls.push('refused');
  }

  expire(): void {
    this.calls.push(`expire ${this.nowMs}`);
    this.deadline = Number.POSITIVE_INFINITY;
  }

  takeEvents(): void {
    this.calls.push('takeEvents');
    this.onTake();
  }
}
