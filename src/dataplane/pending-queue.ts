/**
 * Queues the packets of clients whose presence is being stored.
 * @module
 */
import { checkObject, checkWhole } from '../base/option-check.ts';

export interface PendingQueueOptions {
  /** The number of packets to queue at most for each ingress realm; default 256. */
  readonly maxPackets?: number;
  /** The bytes to queue at most for each ingress realm, virtio-net headers included; default 4 MiB. */
  readonly maxBytes?: number;
}

/** The defaults of the options. */
export const PENDING_QUEUE_DEFAULTS: Readonly<{ maxPackets: number; maxBytes: number }> =
  Object.freeze({ maxPackets: 256, maxBytes: 4 * 1024 * 1024 });

/** Copies the packets, so the caller may reuse its buffers at once. */
export class PendingQueue {
  readonly #maxPackets: number;
  readonly #maxBytes: number;
  readonly #headroom: number;
  readonly #queues = new Map<string, Buffer[]>();
  /** The numbers of queued packets and bytes, by ingress realm. */
  readonly #totals = new Map<number, { packets: number; bytes: number }>();

  /**
   * @param headroom free bytes in front of each packet that `release` returns
   * @throws {ApiMisuseError} naming the option that is wrong.
   */
  constructor(options: PendingQueueOptions = {}, headroom: number = 0) {
    const { maxPackets, maxBytes } = checkObject('waiting', options);
    const defaults = PENDING_QUEUE_DEFAULTS;
    this.#maxPackets = checkWhole('maxPackets', maxPackets ?? defaults.maxPackets, 0, MAX_LIMIT);
    this.#maxBytes = checkWhole('maxBytes', maxBytes ?? defaults.maxBytes, 0, MAX_LIMIT);
    this.#headroom = headroom;
  }

  /**
   * Queues `buffer[start .. end)`, a packet with its virtio-net header, for the client `key`.
   *
   * @returns 'first' if it is the client's only packet, 'queued' if others are queued already, 'full' if the
   *   realm's limit is reached and the packet was not queued
   */
  hold(
    ingress: number,
    key: string,
    buffer: Buffer,
    start: number,
    end: number
  ): 'first' | 'queued' | 'full' {
    const total = this.#totals.get(ingress) ?? { packets: 0, bytes: 0 };
    const length = end - start;
    if (total.packets >= this.#maxPackets || total.bytes + length > this.#maxBytes) return 'full';
    total.packets++;
    total.bytes += length;
    this.#totals.set(ingress, total);
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

  /** Returns how many packets of a realm are queued. */
  packetsOf(ingress: number): number {
    return this.#totals.get(ingress)?.packets ?? 0;
  }

  /**
   * Removes and returns the packets of a client in the order they came, each with the headroom in front.
   */
  release(ingress: number, key: string): readonly Buffer[] {
    const queue = this.#queues.get(key) ?? [];
    this.#queues.delete(key);
    const total = this.#totals.get(ingress);
    if (total !== undefined) {
      total.packets -= queue.length;
      for (const packet of queue) total.bytes -= packet.length - this.#headroom;
    }
    return queue;
  }
}

const MAX_LIMIT = 2 ** 31 - 1;
