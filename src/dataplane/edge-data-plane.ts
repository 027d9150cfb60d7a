/**
 * The edge gateway's data plane: one device, one tunnel, and the check between them.
 *
 * A packet's way out:
 *
 * 1. the device has it: it is read straight into the tunnel's next frame
 * 2. `SiteGate` checks it there; a refused one is simply not committed
 * 3. the frame is committed; the batch is flushed when the device runs dry
 *
 * and in: the tunnel shows the packet where it was received, the gate checks it, the device takes it, cut
 * if it has no offloads (`packet-sender.ts`).
 * @module
 */
import type { PacketDevice } from '../device/index.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/index.ts';
import { SiteGate, Verdict } from '../translator/index.ts';
import { FrameType, type Tunnel } from '../tunnel/index.ts';
import { BATCH_BYTES, DEFAULT_BATCH } from './batch.ts';
import { type CutCounters, PacketSender, Sending } from './packet-sender.ts';

export interface EdgeDataPlaneOptions {
  readonly device: PacketDevice;
  readonly tunnel: Tunnel;
  /** Packets read at most in one turn of the event loop. */
  readonly batch?: number;
}

/** Cumulative; what the gate refused is counted there. */
export interface EdgeDataPlaneCounters extends CutCounters {
  /** Packets read while the tunnel was down. */
  dropNoTunnel: number;
  /** Packets that the device could not take. */
  dropDeviceFull: number;
}

export class EdgeDataPlane {
  readonly gate: SiteGate = new SiteGate();
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

  constructor(options: EdgeDataPlaneOptions) {
    this.#device = options.device;
    this.#tunnel = options.tunnel;
    this.#batch = options.batch ?? DEFAULT_BATCH;
    this.#refuse = Buffer.allocUnsafeSlow(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  }

  /** Begins to move packets. */
  start(): void {
    this.#tunnel.onPacket = this.#onPacket;
    const resume = () => this.#device.resume();
    this.#tunnel.onDrain = resume;
    // A tunnel that was full when it broke never drains.
    this.#tunnel.on('down', resume);
    this.#device.start(this.#onReadable);
  }

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
      const verdict = this.gate.checkOutbound(
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
    const verdict = this.gate.checkInbound(buffer, start + VNET_HEADER_LENGTH, end, start);
    if (verdict !== Verdict.Forward) return;
    const device = this.#device;
    // No frame of a tunnel is longer than what such a device takes.
    if (device.offload) {
      if (!device.write(buffer, start, end - start)) this.counters.dropDeviceFull++;
      return;
    }
    const sending = this.#sender.toDevice(device, buffer, start, end, 0);
    if (sending === Sending.Refused) this.counters.dropDeviceFull++;
  };

  /** Without a tunnel nothing may wait: an old packet is worth less than a new one. */
  #discard(): void {
    for (let i = 0; i < this.#batch; i++) {
      if (this.#device.read(this.#refuse, 0) === 0) return;
      this.counters.dropNoTunnel++;
    }
  }
}
