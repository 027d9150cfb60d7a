/**
 * The data plane of the edge gateway: one device, one tunnel, and the `SiteFilter` between them.
 *
 * Outbound, from the device to the tunnel:
 *
 * 1. Read the packet from the device into the tunnel's next frame.
 * 2. Check it there with the `SiteFilter`. A refused packet is not committed.
 * 3. Commit the frame. Flush the batch when the device has no more packets.
 *
 * While the tunnel is down, packets are read, and dropped or kept (`kept-packets.ts`) until it is up.
 *
 * A device that has `linkChanged` is told when the tunnel comes up and goes down, and is paused while it is down. A
 * device that has `refused` is told of a packet that the tunnel did not take.
 *
 * Inbound, from the tunnel to the device: check the packet in the tunnel's receive buffer, then write it to
 * the device. A device without offloads gets segments (`packet-sender.ts`).
 * @module
 */

import type { Clock } from '../base/clock.ts';
import { checkClock, checkMethods, checkObject, checkWhole } from '../base/option-check.ts';
import type { PacketDevice } from '../device/index.ts';
import { ApiMisuseError } from '../errors.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/index.ts';
import { SiteFilter, Verdict } from '../translator/index.ts';
import { FrameType, type Tunnel } from '../tunnel/index.ts';
import { BATCH_BYTES, DEFAULT_BATCH, MAX_BATCH } from './batch.ts';
import { KeptPackets } from './kept-packets.ts';
import { PacketSender, type SegmentCounters, SendResult } from './packet-sender.ts';
import { ignore, startReading } from './reader.ts';

export interface EdgeDataPlaneOptions {
  readonly device: PacketDevice;
  readonly tunnel: Tunnel;
  /** The number of packets to read at most in one turn of the event loop; default 128. */
  readonly batch?: number;
  /** The clock; its monotonic time says how old kept packets are. Default: the system's clock. */
  readonly clock?: Clock;
}

/** The defaults of the options. */
export const EDGE_DATA_PLANE_DEFAULTS: Readonly<{ batch: number }> = Object.freeze({
  batch: DEFAULT_BATCH,
});

/** Counters since the start. The `filter` counts what it refused. */
export interface EdgeDataPlaneCounters extends SegmentCounters {
  /** The packets that were read and dropped while the tunnel was down; one that is kept counts only if it is dropped later. */
  dropNoTunnel: number;
  /** The packets that were kept while the tunnel was down, and sent when it was up. */
  sentLate: number;
  /** The packets that the device refused. */
  dropDeviceFull: number;
}

/** Moves packets between `start` and `stop`. The caller closes the device and the tunnel. */
export class EdgeDataPlane {
  readonly filter: SiteFilter = new SiteFilter();
  readonly counters: EdgeDataPlaneCounters = {
    cut: 0,
    dropUncut: 0,
    dropNoTunnel: 0,
    sentLate: 0,
    dropDeviceFull: 0,
  };

  readonly #device: PacketDevice;
  readonly #tunnel: Tunnel;
  readonly #batch: number;
  readonly #sender: PacketSender = new PacketSender(this.counters);
  readonly #clock: Clock;
  readonly #kept: KeptPackets = new KeptPackets();
  /** The packets that cannot be sent are read into it. */
  readonly #discarded: Buffer;
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
    this.#clock = checkClock(options.clock);
    this.#discarded = Buffer.allocUnsafeSlow(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  }

  /**
   * Starts to move packets.
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
    tunnel.on('up', this.#onUp);
    tunnel.on('down', this.#onDown);
    if (tunnel.state === 'up') this.#device.linkChanged?.(true);
    else this.#onDown();
    try {
      this.#stopReading = startReading(this.#device, this.#onReadable);
    } catch (error) {
      this.#leaveTunnel();
      throw error;
    }
  }

  /**
   * Stops moving packets: pauses the device and removes the callbacks from it and from the tunnel. A second call does
   * nothing.
   */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#stopReading?.();
    this.#kept.clear();
    this.#leaveTunnel();
  }

  #leaveTunnel(): void {
    const tunnel = this.#tunnel;
    if (tunnel.onPacket === this.#onPacket) tunnel.onPacket = ignore;
    if (tunnel.onDrain === this.#resume) tunnel.onDrain = ignore;
    tunnel.off('up', this.#onUp);
    tunnel.off('down', this.#onDown);
  }

  readonly #resume = (): void => this.#device.resume();

  readonly #onUp = (): void => {
    const device = this.#device;
    if (device.linkChanged === undefined) {
      this.#sendKept();
      return;
    }
    device.linkChanged(true);
    device.resume();
  };

  readonly #onDown = (): void => {
    const device = this.#device;
    if (device.linkChanged === undefined) {
      // A tunnel that was full when it went down never drains, and the packets are dropped from now on.
      device.resume();
      return;
    }
    device.pause();
    device.linkChanged(false);
  };

  readonly #onReadable = (): void => {
    const device = this.#device;
    const tunnel = this.#tunnel;
    if (tunnel.state !== 'up') {
      if (device.linkChanged === undefined) this.#discard();
      return;
    }
    let bytes = 0;
    for (let i = 0; i < this.#batch && bytes < BATCH_BYTES; i++) {
      const at = tunnel.reserve();
      if (at < 0) {
        // A tunnel that went down during the batch never drains.
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
      const isTaken = verdict !== Verdict.Forward || tunnel.commit(FrameType.Packet, length);
      if (!isTaken) device.refused?.();
    }
    tunnel.flush();
  };

  readonly #onPacket = (buffer: Buffer, start: number, end: number): void => {
    const verdict = this.filter.checkInbound(buffer, start + VNET_HEADER_LENGTH, end, start);
    if (verdict !== Verdict.Forward) return;
    const device = this.#device;
    // A device with offloads takes packets as long as any frame of a tunnel.
    if (device.offload) {
      if (!device.write(buffer, start, end - start)) this.counters.dropDeviceFull++;
      return;
    }
    const result = this.#sender.toDevice(device, buffer, start, end, 0);
    if (result === SendResult.Refused) this.counters.dropDeviceFull++;
  };

  /** Keeps or drops the packets of a batch: without a tunnel most would only get old in a queue. */
  #discard(): void {
    const buffer = this.#discarded;
    const nowMs = this.#clock.monotonicMs();
    for (let i = 0; i < this.#batch; i++) {
      const length = this.#device.read(buffer, 0);
      if (length === 0) return;
      const verdict = this.filter.checkOutbound(buffer, VNET_HEADER_LENGTH, length, 0);
      // The filter counts what it refuses.
      if (verdict !== Verdict.Forward) continue;
      this.counters.dropNoTunnel += this.#kept.keep(0, buffer, 0, length, nowMs);
    }
  }

  /** The filter may be another one by now, so each packet is checked again. */
  #sendKept(): void {
    const { counters, filter } = this;
    const tunnel = this.#tunnel;
    const nowMs = this.#clock.monotonicMs();
    counters.dropNoTunnel += this.#kept.release(0, nowMs, (packet, end) => {
      if (filter.checkOutbound(packet, VNET_HEADER_LENGTH, end, 0) !== Verdict.Forward) return;
      if (tunnel.sendPacket(packet, 0, end)) counters.sentLate++;
      else counters.dropNoTunnel++;
    });
    tunnel.flush();
  }
}
