/**
 * Keeps the packets of clients whose presence is being stored, and hands them back in order.
 * @module
 */
import { checkObject, checkWhole } from '../base/option-check.ts';

export interface PendingQueueOptions {
  /** Packets kept at most for each ingress realm; default 256. */
  readonly maxPackets?: number;
  /** Bytes kept at most for each ingress realm, virtio-net headers included; default 4 MiB. */
  readonly maxBytes?: number;
}

/** What is used where an option is absent. */
export const PENDING_QUEUE_DEFAULTS: Readonly<{ maxPackets: number; maxBytes: number }> =
  Object.freeze({ maxPackets: 256, maxBytes: 4 * 1024 * 1024 });

/** Copies what it keeps: the caller's buffers are free again at once. */
export class PendingQueue {
  readonly #maxPackets: number;
  readonly #maxBytes: number;
  readonly #headroom: number;
  readonly #queues = new Map<string, Buffer[]>();
  /** Packets and bytes kept, by ingress realm. */
  readonly #kept = new Map<number, { packets: number; bytes: number }>();

  /**
   * @param headroom bytes that are free in front of each packet that is handed back
   * @throws {ApiMisuseError} naming the option that is wrong.
   */
  constructor(options: PendingQueueOptions = {}, headroom: number = 0) {
    const { maxPackets, maxBytes } = checkObject('waiting', options);
    const defaults = PENDING_QUEUE_DEFAULTS;
    this.#maxPackets = checkWhole('maxPackets', maxPackets ?? defaults.maxPackets, 0, MAX_KEPT);
    this.#maxBytes = checkWhole('maxBytes', maxBytes ?? defaults.maxBytes, 0, MAX_KEPT);
    this.#headroom = headroom;
  }

  /**
   * Keeps `buffer[start .. end)`, a packet with its virtio-net header, for the client `key`.
   *
   * @returns 'first' if it is the first one for that client, 'queued' if others wait already, 'full'
   *   if the realm may keep no more
   */
  hold(
    ingress: number,
    key: string,
    buffer: Buffer,
    start: number,
    end: number
  ): 'first' | 'queued' | 'full' {
    const kept = this.#kept.get(ingress) ?? { packets: 0, bytes: 0 };
    const length = end - start;
    if (kept.packets >= this.#maxPackets || kept.bytes + length > this.#maxBytes) return 'full';
    kept.packets++;
    kept.bytes += length;
    this.#kept.set(ingress, kept);
    const copy = Buffer.alloc(this.#headroom + length);
    buffer.copy(copy, this.#headroom, start, end);
    const queue = this.#queues.get(key);
    if (queue !== undefined) {
      queue.push(copy);
      return 'queued';
    }
    this.#queues.set(key, [copy]);
    return 'first';
  }

  /**
   * Removes and returns the packets kept for a client, in the order they came, each with the headroom
   * in front.
   */
  release(ingress: number, key: string): readonly Buffer[] {
    const queue = this.#queues.get(key) ?? [];
    this.#queues.delete(key);
    const kept = this.#kept.get(ingress);
    if (kept !== undefined) {
      kept.packets -= queue.length;
      for (const packet of queue) kept.bytes -= packet.length - this.#headroom;
    }
    return queue;
  }
}

const MAX_KEPT = 2 ** 31 - 1;
