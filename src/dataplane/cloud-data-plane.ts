/**
 * The data plane of the cloud gateway: one device, the translator, and a tunnel for each site.
 *
 * The path of a packet:
 *
 * 1. Read a packet from the device into the next frame of the tunnel that got the packet before it, because
 *    it is likely to go there too. A packet from a site stays where its tunnel received it.
 * 2. Translate it in place. The ingress realm is that of the device or the tunnel, never taken from the
 *    packet. A packet that needs more headroom is first copied to a buffer that has it.
 * 3. Write it to the device, or commit it to the tunnel of the egress site. It is copied if step 1 chose
 *    another tunnel, or if the packet has moved. A packet that does not fit is split (`packet-sender.ts`).
 *    Tunnels are flushed at the end of the batch.
 * 4. If its client has no presence yet, queue it until one is stored, then continue with step 2.
 * 5. If it is refused and gets an answer, send the answer back to where the packet came from.
 *
 * A packet for a site whose tunnel is down is dropped, or kept until it is up (`kept-packets.ts`).
 *
 * If a tunnel is down or does not take the packet that was read last, a device that has `refused` is told so.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import {
  checkClock,
  checkFunction,
  checkMethods,
  checkObject,
  checkText,
  checkWhole,
} from '../base/option-check.ts';
import type { PacketDevice } from '../device/index.ts';
import { ApiMisuseError } from '../errors.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/index.ts';
import { type PacketTranslator, TRANSLATION_HEADROOM, Verdict } from '../translator/index.ts';
import { MAX_PACKET_PAYLOAD } from '../tunnel/frame.ts';
import { FrameType, type Tunnel } from '../tunnel/index.ts';
import { BATCH_BYTES, DEFAULT_BATCH, MAX_BATCH } from './batch.ts';
import { KeptPackets } from './kept-packets.ts';
import { PacketSender, type SegmentCounters, SendResult } from './packet-sender.ts';
import { PendingQueue, type PendingQueueOptions } from './pending-queue.ts';
import { ignore, startReading } from './reader.ts';

export interface CloudDataPlaneOptions {
  /** The name of the realm behind the device. */
  readonly cloud: string;
  readonly device: PacketDevice;
  readonly translator: PacketTranslator;
  /**
   * Binds a presence of IP version `family` in the realm `egress` to the host `source` of the realm
   * `ingress`. It must be stored when the promise resolves.
   */
  readonly admit: (ingress: string, source: string, egress: string, family: 4 | 6) => Promise<void>;
  /** The number of packets to read at most in one turn of the event loop; default 128. */
  readonly batch?: number;
  /** The limits of the queue of packets whose client has no presence yet. Default: `PENDING_QUEUE_DEFAULTS`. */
  readonly waiting?: PendingQueueOptions;
  /** The clock; its monotonic time is read once for a batch. Default: the system's clock. */
  readonly clock?: Clock;
}

/** The defaults of the options; `PENDING_QUEUE_DEFAULTS` has those of `waiting`. */
export const CLOUD_DATA_PLANE_DEFAULTS: Readonly<{ batch: number }> = Object.freeze({
  batch: DEFAULT_BATCH,
});

/** Counters since the start. The translator counts the verdicts. */
export interface CloudDataPlaneCounters extends SegmentCounters {
  /** The answers to refused packets that were sent. */
  replies: number;
  /** The packets for a site whose tunnel is not up; one that is kept counts only if it is dropped later. */
  dropNoTunnel: number;
  /** The packets that were kept while the tunnel of their site was down, and sent when it was up. */
  sentLate: number;
  /** The packets for a site that does not read as fast as they come. */
  dropTunnelFull: number;
  /** The packets that the device refused. */
  dropDeviceFull: number;
  /** The packets of new clients that did not fit in the pending queue. */
  dropWaitingFull: number;
  /** The packets of new clients that got no presence. */
  dropNotAdmitted: number;
}

/** Moves packets between `start` and `stop`. The caller closes the device and the tunnels. */
export class CloudDataPlane {
  readonly counters: CloudDataPlaneCounters = {
    cut: 0,
    replies: 0,
    dropUncut: 0,
    dropNoTunnel: 0,
    sentLate: 0,
    dropTunnelFull: 0,
    dropDeviceFull: 0,
    dropWaitingFull: 0,
    dropNotAdmitted: 0,
  };

  readonly #device: PacketDevice;
  readonly #translator: PacketTranslator;
  readonly #admit: CloudDataPlaneOptions['admit'];
  readonly #batch: number;
  readonly #clock: Clock;
  readonly #pending: PendingQueue;
  /** The packets whose tunnel is down; the index of the realm is the number of the tunnel. */
  readonly #kept: KeptPackets = new KeptPackets();
  readonly #sender: PacketSender = new PacketSender(this.counters);
  /** The translator's `reply`, as a `Buffer` for devices and tunnels. */
  readonly #reply: Buffer;
  readonly #cloud: number;
  /** The tunnels by realm index. */
  readonly #tunnels: (Tunnel | undefined)[] = [];
  /** A buffer with headroom, for packets that are not read into the frame of a tunnel, and for copies. */
  readonly #scratch: Buffer = Buffer.allocUnsafeSlow(
    TRANSLATION_HEADROOM + VNET_HEADER_LENGTH + MAX_PACKET_LENGTH
  );
  /** The tunnel of the device's last packet, if that was sent from the frame it was read into. */
  #likelyTunnel: Tunnel | undefined;
  /** The tunnels with frames that are not flushed yet. */
  readonly #unflushed: Tunnel[] = [];
  /** Whether the packet in hand is the one that was read last from the device. */
  #isFromDevice = false;
  #stopReading: () => void = ignore;
  #isStopped = false;

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: CloudDataPlaneOptions) {
    const { cloud, device, translator, admit, waiting } = checkObject('options', options);
    const { batch = CLOUD_DATA_PLANE_DEFAULTS.batch } = options;
    checkMethods('device', device, ['start', 'pause', 'resume', 'read', 'write']);
    checkMethods('translator', translator, ['translate', 'advance', 'realm', 'realmName']);
    this.#device = device;
    this.#translator = translator;
    this.#admit = checkFunction('admit', admit);
    this.#batch = checkWhole('batch', batch, 1, MAX_BATCH);
    this.#clock = checkClock(options.clock);
    this.#pending = new PendingQueue(waiting, TRANSLATION_HEADROOM);
    this.#cloud = translator.realm(checkText('cloud', cloud));
    const { buffer, byteOffset, byteLength } = translator.reply;
    this.#reply = Buffer.from(buffer, byteOffset, byteLength);
  }

  /**
   * Starts to move packets.
   *
   * @throws {ApiMisuseError} on a second call, after `stop`, and if the device was started before or is closed.
   */
  start(): void {
    if (this.#isStopped) throw new ApiMisuseError('the data plane was stopped');
    this.#stopReading = startReading(this.#device, this.#onReadable);
  }

  /**
   * Stops moving packets: pauses the device and removes the callbacks from it and from all tunnels. Packets in the
   * pending queue are dropped. A batch that is being processed is finished first. A second call does nothing.
   */
  stop(): void {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#stopReading();
    this.#kept.clear();
    for (const [realm, tunnel] of this.#tunnels.entries()) {
      if (tunnel !== undefined) this.#detach(realm, tunnel);
    }
  }

  /**
   * Uses a tunnel for the packets of a site, instead of an earlier one. Returns a function that ends this.
   * A data plane that was stopped ignores the tunnel.
   */
  attach(site: string, tunnel: Tunnel): () => void {
    checkText('site', site);
    checkMethods('tunnel', tunnel, ['reserve', 'commit', 'flush', 'sendPacket']);
    if (this.#isStopped) return ignore;
    const realm = this.#translator.realm(site);
    const before = this.#tunnels[realm];
    if (before !== undefined) this.#detach(realm, before);
    this.#tunnels[realm] = tunnel;
    let isTimeSet = false;
    tunnel.onPacket = (buffer, start, end) => {
      if (!isTimeSet) {
        isTimeSet = true;
        this.#translator.advance(this.#clock.monotonicMs());
      }
      const headroom = Math.min(start, TRANSLATION_HEADROOM);
      const verdict = this.#translate(realm, buffer, start, end, headroom);
      this.#handleVerdict(realm, buffer, start, end, verdict);
    };
    tunnel.onBatchEnd = () => {
      isTimeSet = false;
      this.#flush();
    };
    this.#sendKept(realm, tunnel);
    return () => this.#detach(realm, tunnel);
  }

  /** Drops what is kept. Called when the plan has changed, because it was translated by the plan before. */
  forgetKept(): void {
    this.counters.dropNoTunnel += this.#kept.clear();
  }

  /** Returns how many packets of a site wait until their clients have a presence. */
  pendingPackets(site: string): number {
    return this.#pending.packetsOf(this.#translator.realm(site));
  }

  #detach(realm: number, tunnel: Tunnel): void {
    tunnel.onPacket = ignore;
    tunnel.onBatchEnd = ignore;
    if (this.#likelyTunnel === tunnel) this.#likelyTunnel = undefined;
    if (this.#tunnels[realm] === tunnel) this.#tunnels[realm] = undefined;
    // The tunnel may be in the middle of a batch.
    this.#flush();
  }

  readonly #onReadable = (): void => {
    const translator = this.#translator;
    translator.advance(this.#clock.monotonicMs());
    let bytes = 0;
    for (let i = 0; i < this.#batch && bytes < BATCH_BYTES; i++) {
      const guess = this.#likelyTunnel;
      const at = guess?.reserve() ?? -1;
      const isInFrame = at >= 0;
      // This happens also if the guess was wrong: `flush` releases what was reserved.
      if (isInFrame) this.#flushLater(guess!);
      const buffer = isInFrame ? guess!.buffer : this.#scratch;
      const start = isInFrame ? at : TRANSLATION_HEADROOM;
      const length = this.#device.read(buffer, start);
      if (length === 0) break;
      bytes += length;
      this.#isFromDevice = true;
      const end = start + length;
      const headroom = isInFrame ? 0 : TRANSLATION_HEADROOM;
      const verdict = this.#translate(this.#cloud, buffer, start, end, headroom);
      if (verdict === Verdict.Forward) {
        const tunnel = this.#tunnels[translator.egress];
        const isInPlace = translator.vnet === start && translator.segmentTo === 0;
        this.#likelyTunnel = isInPlace ? tunnel : undefined;
        if (isInFrame && tunnel === guess) {
          if (isInPlace) this.#commit(guess!, translator.end - start);
          else this.#forwardCopy(buffer);
          continue;
        }
      } else if (verdict === Verdict.NeedsHeadroom) {
        this.#likelyTunnel = undefined;
      }
      this.#handleVerdict(this.#cloud, buffer, start, end, verdict);
    }
    this.#isFromDevice = false;
    this.#flush();
  };

  #translate(realm: number, buffer: Buffer, start: number, end: number, headroom: number): Verdict {
    const packet = start + VNET_HEADER_LENGTH;
    return this.#translator.translate(realm, buffer, packet, end, start, headroom);
  }

  /** Acts on the verdict of the last `#translate`. */
  #handleVerdict(
    realm: number,
    buffer: Buffer,
    start: number,
    end: number,
    verdict: Verdict
  ): void {
    const translator = this.#translator;
    if (verdict === Verdict.Forward) {
      this.#send(translator.egress, buffer, translator.vnet, translator.end, translator.segmentTo);
    } else if (verdict === Verdict.NeedsHeadroom) {
      this.#retryWithHeadroom(realm, buffer, start, end);
    } else if (verdict === Verdict.NeedsPresence) {
      this.#hold(realm, buffer, start, end);
    } else if (translator.replyLength > 0) {
      const isSent = this.#send(realm, this.#reply, 0, translator.replyLength, 0);
      if (isSent) this.counters.replies++;
    }
  }

  /** Translates the packet again in a buffer with enough headroom, and acts on the verdict. */
  #retryWithHeadroom(realm: number, buffer: Buffer, start: number, end: number): void {
    const at = TRANSLATION_HEADROOM;
    const behind = at + end - start;
    buffer.copy(this.#scratch, at, start, end);
    const verdict = this.#translate(realm, this.#scratch, at, behind, at);
    if (verdict !== Verdict.NeedsHeadroom)
      this.#handleVerdict(realm, this.#scratch, at, behind, verdict);
  }

  #commit(tunnel: Tunnel, length: number): void {
    if (!tunnel.commit(FrameType.Packet, length)) this.#onTunnelFull();
  }

  #onTunnelFull(): void {
    this.counters.dropTunnelFull++;
    this.#onDropped();
  }

  #onDropped(): void {
    if (this.#isFromDevice) this.#device.refused?.();
  }

  /** Copies the translated packet out of its tunnel's frame, then sends it. */
  #forwardCopy(buffer: Buffer): void {
    const { egress, vnet, end, segmentTo } = this.#translator;
    buffer.copy(this.#scratch, 0, vnet, end);
    this.#send(egress, this.#scratch, 0, end - vnet, segmentTo);
  }

  /** Sends a packet. Returns whether all of it was taken, and counts the drop otherwise. */
  #send(realm: number, buffer: Buffer, vnet: number, end: number, segmentTo: number): boolean {
    const { counters } = this;
    if (realm === this.#cloud) {
      const device = this.#device;
      // Nearly all packets take this branch; a call of the sender would cost a tenth more.
      if (segmentTo === 0 && device.offload && end - vnet <= MAX_PACKET_PAYLOAD) {
        const isTaken = device.write(buffer, vnet, end - vnet);
        if (!isTaken) counters.dropDeviceFull++;
        return isTaken;
      }
      const result = this.#sender.toDevice(device, buffer, vnet, end, segmentTo);
      if (result === SendResult.Refused) counters.dropDeviceFull++;
      return result === SendResult.Sent;
    }
    const tunnel = this.#tunnels[realm];
    if (tunnel === undefined) {
      // One that does not fit a frame is dropped.
      const canKeep = segmentTo === 0 && end - vnet <= MAX_PACKET_PAYLOAD;
      counters.dropNoTunnel += canKeep
        ? this.#kept.keep(realm, buffer, vnet, end, this.#clock.monotonicMs())
        : 1;
      this.#onDropped();
      return false;
    }
    const result = this.#sender.toTunnel(tunnel, buffer, vnet, end, segmentTo);
    if (result === SendResult.Refused) this.#onTunnelFull();
    // Some pieces of a refused packet may have been taken.
    if (result !== SendResult.NotSegmented) this.#flushLater(tunnel);
    return result === SendResult.Sent;
  }

  #hold(realm: number, buffer: Buffer, start: number, end: number): void {
    const ingress = this.#translator.realmName(realm);
    const egress = this.#translator.realmName(this.#translator.egress);
    const source = this.#translator.lackingPresence().toString();
    const family = this.#translator.lackingFamily;
    const key = `${ingress}/${source}>${egress} IPv${family}`;
    const outcome = this.#pending.hold(realm, key, buffer, start, end);
    if (outcome === 'full') this.counters.dropWaitingFull++;
    if (outcome !== 'first') return;
    this.#admit(ingress, source, egress, family).then(
      () => this.#release(realm, key),
      () => {
        this.counters.dropNotAdmitted += this.#pending.release(realm, key).length;
      }
    );
  }

  #release(realm: number, key: string): void {
    if (this.#isStopped) {
      this.#pending.release(realm, key);
      return;
    }
    this.#translator.advance(this.#clock.monotonicMs());
    for (const packet of this.#pending.release(realm, key)) {
      const start = TRANSLATION_HEADROOM;
      const verdict = this.#translate(realm, packet, start, packet.length, start);
      if (verdict === Verdict.NeedsPresence) this.counters.dropNotAdmitted++;
      else this.#handleVerdict(realm, packet, start, packet.length, verdict);
    }
    this.#flush();
  }

  #sendKept(realm: number, tunnel: Tunnel): void {
    const { counters } = this;
    counters.dropNoTunnel += this.#kept.release(realm, this.#clock.monotonicMs(), (packet, end) => {
      if (tunnel.sendPacket(packet, 0, end)) counters.sentLate++;
      else counters.dropTunnelFull++;
    });
    tunnel.flush();
  }

  #flushLater(tunnel: Tunnel): void {
    const { length } = this.#unflushed;
    if (length === 0 || this.#unflushed[length - 1] !== tunnel) this.#unflushed.push(tunnel);
  }

  #flush(): void {
    for (let i = 0; i < this.#unflushed.length; i++) this.#unflushed[i]!.flush();
    this.#unflushed.length = 0;
  }
}
