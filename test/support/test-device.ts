/**
 * A device that the test controls: it sends packets in, collects what comes out, and runs each turn of the
 * event loop.
 */
import { MemoryDevice, type MemoryDeviceOptions } from '../../src/device/index.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../../src/packet/index.ts';

export class TestDevice {
  readonly device: MemoryDevice;
  readonly #far: MemoryDevice;
  readonly #turns: (() => void)[] = [];

  constructor(options: MemoryDeviceOptions = {}) {
    const schedule = (callback: () => void) => this.#turns.push(callback);
    [this.device, this.#far] = MemoryDevice.pair({ ...options, schedule });
  }

  /** Queues these frames for reading, each with its virtio-net header. */
  send(...frames: Uint8Array[]): void {
    for (const frame of frames) {
      if (!this.#far.write(Buffer.from(frame), 0, frame.length)) throw new Error('not taken');
    }
  }

  /** Lets the loop behind the device run once; false if it has nothing to do. */
  turn(): boolean {
    const turns = this.#turns.splice(0);
    for (const callback of turns) callback();
    return turns.length > 0;
  }

  /** Lets the loop run until the device has no more packets or is paused. Returns how often. */
  run(): number {
    let turns = 0;
    while (this.turn()) {
      if (++turns > 10_000) throw new Error('the loop never ends');
    }
    return turns;
  }

  /** What has been written to the device since the last call. */
  taken(): Buffer[] {
    const buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
    const frames: Buffer[] = [];
    for (;;) {
      const length = this.#far.read(buffer, 0);
      if (length === 0) return frames;
      frames.push(Buffer.from(buffer.subarray(0, length)));
    }
  }
}
