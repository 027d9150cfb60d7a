/**
 * The edge gateway's data plane: one device, one tunnel, and the check between them.
 *
 * A packet's way out:
 *
 * 1. the device has it: it is read straight into the tunnel's next frame
 * 2. `SiteFilter` checks it there; a refused one is simply not committed
 * 3. the frame is committed; the batch is flushed when the device runs dry
 *
 * and in: the tunnel shows the packet where it was received, the gate checks it, the device takes it, cut
 * if it has no offloads (`packet-sender.ts`).
 * @module
 */

import { checkMethods, checkObject, checkWhole } from '../base/option-check.ts';
import type { PacketDevice } from '../device/index.ts';
import { ApiMisuseError } from '../errors.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/index.ts';
import { SiteFilter, Verdict } from '../translator/index.ts';
import { FrameType, type Tunnel } from '../tunnel/index.ts';
import { BATCH_BYTES, DEFAULT_BATCH, MAX_BATCH } from './batch.ts';
import { PacketSender, type SegmentCounters, SendResult } from './packet-sender.ts';
import { ignore, startReading } from './reader.ts';

export interface EdgeDataPlaneOptions {
  readonly device: PacketDevice;
  readonly tunnel: Tunnel;
  /** Packets read at most in one turn of the event loop; default 128. */
  readonly batch?: number;
}

/** What is used where an option is absent. */
export const EDGE_DATA_PLANE_DEFAULTS: Readonly<{ batch: number }> = Object.freeze({
  batch: DEFAULT_BATCH,
});

/** Cumulative; what the gate refused is counted there. */
export interface EdgeDataPlaneCounters extends SegmentCounters {
  /** Packets read while the tunnel was down. */
  dropNoTunnel: number;
  /** Packets that the device could not take. */
  dropDeviceFull: number;
}

/** Moves packets from `start` to `stop`; the device and the tunnel stay the host's to close. */
export class EdgeDataPlane {
  readonly filter: SiteFilter = new SiteFilter();
  readonly counters: EdgeDataPlaneCounters = {
    cut: 0,
    dropUncut: 0,
    dropNoTunnel: 0,
    dropDeviceFull: 0,
  };

  readonly #device: PacketDevice;
  readonly #tunnel: Tunnel;
  readonly #batch: number;
  readonly #sender: PacketSender = new PacketSender(this.counters);
  readonly #refuse: Buffer;
  #stopReading: (() => void) | undefined;
  #isStopped = false;

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: EdgeDataPlaneOptions) {
    const { device, tunnel } = checkObject('options', options);
    const { batch = EDGE_DATA_PLANE_DEFAULTS.batch } = options;
    checkMethods('device', device, ['start', 'pause', 'resume', 'read', 'write']);
    checkMethods('tunnel', tunnel, ['reserve', 'commit', 'flush', 'on', 'off']);
    this.#device = device;
    this.#tunnel = tunnel;
    this.#batch = checkWhole('batch', batch, 1, MAX_BATCH);
    this.#refuse = Buffer.allocUnsafeSlow(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  }

  /**
   * Begins to move packets.
   *
   * @throws {ApiMisuseError} on a second call, after `stop`, and if the device was started before or is closed.
   */
  start(): void {
    if (this.#isStopped) throw new ApiMisuseError('the data plane was stopped');
    if (this.#stopReading !== undefined)
      throw new ApiMisuseError('the data plane was started before');
    const tunnel = this.#tunnel;
    tunnel.onPacket = this.#onPacket;
    tunnel.onDrain = this.#resume;
    // A tunnel that was full when it broke never drains.
    tunnel.on('down', this.#resume);
    try {
      this.#stopReading = startReading(this.#device, this.#onReadable);
    } catch (error) {
      this.#leaveTunnel();
      throw error;
    }
  }

  /**
   * Moves no packet any more: takes what it listens with off the device, which is paused, and off the tunnel. Safe to
   * call twice.
   */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#stopReading?.();
    this.#leaveTunnel();
  }

  #leaveTunnel(): void {
    const tunnel = this.#tunnel;
    if (tunnel.onPacket === this.#onPacket) tunnel.onPacket = ignore;
    if (tunnel.onDrain === this.#resume) tunnel.onDrain = ignore;
    tunnel.off('down', this.#resume);
  }

  readonly #resume = (): void => this.#device.resume();

  readonly #onReadable = (): void => {
    const device = this.#device;
    const tunnel = this.#tunnel;
    if (tunnel.state !== 'up') {
      this.#discard();
      return;
    }
    let bytes = 0;
    for (let i = 0; i < this.#batch && bytes < BATCH_BYTES; i++) {
      const at = tunnel.reserve();
      if (at < 0) {
        // A tunnel that has gone down in the middle of the batch never drains.
        if (tunnel.state === 'up') device.pause();
        break;
      }
      const length = device.read(tunnel.buffer, at);
      if (length === 0) break;
      bytes += length;
      const verdict = this.filter.checkOutbound(
        tunnel.buffer,
        at + VNET_HEADER_LENGTH,
        at + length,
        at
      );
      if (verdict === Verdict.Forward) tunnel.commit(FrameType.Packet, length);
    }
    tunnel.flush();
  };

  readonly #onPacket = (buffer: Buffer, start: number, end: number): void => {
    const verdict = this.filter.checkInbound(buffer, start + VNET_HEADER_LENGTH, end, start);
    if (verdict !== Verdict.Forward) return;
    const device = this.#device;
    // No frame of a tunnel is longer than what such a device takes.
    if (device.offload) {
      if (!device.write(buffer, start, end - start)) this.counters.dropDeviceFull++;
      return;
    }
    const result = this.#sender.toDevice(device, buffer, start, end, 0);
    if (result === SendResult.Refused) this.counters.dropDeviceFull++;
  };

  /** Without a tunnel nothing may wait: an old packet is worth less than a new one. */
  #discard(): void {
    for (let i = 0; i < this.#batch; i++) {
      if (this.#device.read(this.#refuse, 0) === 0) return;
      this.counters.dropNoTunnel++;
    }
  }
}
