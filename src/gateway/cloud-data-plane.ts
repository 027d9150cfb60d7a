/**
 * The cloud gateway's data plane: one device, the translator, and a tunnel for each site.
 *
 * A packet's way:
 *
 * 1. from the cloud: it is read from the device, straight into the next frame of the tunnel that got the
 *    packet before it, for it is likely to go there too; from a site: it lies where its tunnel received it
 * 2. the translator rewrites it in place; the ingress realm is the device's or the tunnel's, never
 *    anything the packet says
 * 3. it goes to the device, or is committed to the egress site's tunnel (copied there if step 1 guessed
 *    wrong), which is flushed at the end of the batch
 * 4. a packet whose client has no presence yet waits until one is stored, then goes on from step 2
 * @module
 */
import type { PacketDevice } from '../device/index.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../packet/index.ts';
import { type PacketTranslator, Verdict } from '../translator/index.ts';
import { FrameType, type Tunnel } from '../tunnel/index.ts';
import { WaitingRoom, type WaitingRoomOptions } from './waiting-room.ts';

export interface CloudDataPlaneOptions {
  /** The name of the realm behind the device. */
  readonly cloud: string;
  readonly device: PacketDevice;
  readonly translator: PacketTranslator;
  /** Gives the host `source` of `ingress` a presence in `egress`, stored before it resolves. */
  readonly admit: (ingress: string, source: string, egress: string) => Promise<void>;
  /** Packets read at most in one turn of the event loop. */
  readonly batch?: number;
  readonly waiting?: WaitingRoomOptions;
}

/** Cumulative; verdicts are counted by the translator. */
export interface CloudDataPlaneCounters {
  /** Packets for a site whose tunnel is not up. */
  dropNoTunnel: number;
  /** Packets for a site that does not read as fast as they come. */
  dropTunnelFull: number;
  /** Packets that the device could not take. */
  dropDeviceFull: number;
  /** Packets of new clients, more than may wait. */
  dropWaitingFull: number;
  /** Packets of new clients that got no presence. */
  dropNotAdmitted: number;
}

export class CloudDataPlane {
  readonly counters: CloudDataPlaneCounters = {
    dropNoTunnel: 0,
    dropTunnelFull: 0,
    dropDeviceFull: 0,
    dropWaitingFull: 0,
    dropNotAdmitted: 0,
  };

  readonly #device: PacketDevice;
  readonly #translator: PacketTranslator;
  readonly #admit: CloudDataPlaneOptions['admit'];
  readonly #batch: number;
  readonly #waiting: WaitingRoom;
  readonly #cloud: number;
  /** By realm index; a realm without an entry has no tunnel. */
  readonly #tunnels: (Tunnel | undefined)[] = [];
  /** Where packets are read to while there is no tunnel to read them into. */
  readonly #scratch: Buffer = Buffer.allocUnsafeSlow(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);
  /** The tunnel that got a packet of the device last. */
  #likely: Tunnel | undefined;
  /** Tunnels with frames that are not flushed yet. */
  readonly #unflushed: Tunnel[] = [];

  constructor(options: CloudDataPlaneOptions) {
    this.#device = options.device;
    this.#translator = options.translator;
    this.#admit = options.admit;
    this.#batch = options.batch ?? 128;
    this.#waiting = new WaitingRoom(options.waiting);
    this.#cloud = options.translator.realm(options.cloud);
  }

  /** Begins to move packets. */
  start(): void {
    this.#device.start(this.#onReadable);
  }

  /**
   * Makes a tunnel the way to and from a site, in place of any earlier one. Returns the function that
   * ends it.
   */
  attach(site: string, tunnel: Tunnel): () => void {
    const realm = this.#translator.realm(site);
    const before = this.#tunnels[realm];
    if (before !== undefined) this.#detach(realm, before);
    this.#tunnels[realm] = tunnel;
    tunnel.onPacket = (buffer, start, end) => {
      this.#forward(realm, buffer, start, end, this.#translate(realm, buffer, start, end));
    };
    tunnel.onBatchEnd = () => this.#flush();
    return () => this.#detach(realm, tunnel);
  }

  #detach(realm: number, tunnel: Tunnel): void {
    tunnel.onPacket = discard;
    tunnel.onBatchEnd = discard;
    if (this.#likely === tunnel) this.#likely = undefined;
    if (this.#tunnels[realm] === tunnel) this.#tunnels[realm] = undefined;
  }

  readonly #onReadable = (): void => {
    for (let i = 0; i < this.#batch; i++) {
      const guess = this.#likely;
      const at = guess?.reserve() ?? -1;
      const buffer = at < 0 ? this.#scratch : guess!.buffer;
      // Also if nothing comes of the guess: a tunnel gives back what was reserved when it is flushed.
      if (at >= 0) this.#flushLater(guess!);
      const start = Math.max(at, 0);
      const length = this.#device.read(buffer, start);
      if (length === 0) break;
      const end = start + length;
      const verdict = this.#translate(this.#cloud, buffer, start, end);
      const isGuessed = at >= 0 && this.#tunnels[this.#translator.egress] === guess;
      if (verdict === Verdict.Forward && isGuessed) {
        guess!.commit(FrameType.Packet, length);
      } else {
        this.#forward(this.#cloud, buffer, start, end, verdict);
        if (verdict === Verdict.Forward) this.#likely = this.#tunnels[this.#translator.egress];
      }
    }
    this.#flush();
  };

  #translate(realm: number, buffer: Buffer, start: number, end: number): Verdict {
    return this.#translator.translate(realm, buffer, start + VNET_HEADER_LENGTH, end, start);
  }

  /** Does what the verdict of the last `#translate` says. */
  #forward(realm: number, buffer: Buffer, start: number, end: number, verdict: Verdict): void {
    if (verdict === Verdict.NeedsPresence) {
      this.#hold(realm, buffer, start, end);
      return;
    }
    if (verdict !== Verdict.Forward) return;
    const { egress } = this.#translator;
    if (egress === this.#cloud) {
      if (!this.#device.write(buffer, start, end - start)) this.counters.dropDeviceFull++;
      return;
    }
    const tunnel = this.#tunnels[egress];
    if (tunnel === undefined) this.counters.dropNoTunnel++;
    else if (tunnel.sendPacket(buffer, start, end)) this.#flushLater(tunnel);
    else this.counters.dropTunnelFull++;
  }

  #hold(realm: number, buffer: Buffer, start: number, end: number): void {
    const ingress = this.#translator.realmName(realm);
    const egress = this.#translator.realmName(this.#translator.egress);
    const source = this.#translator.lackingPresence().toString();
    const key = `${ingress}/${source}>${egress}`;
    const outcome = this.#waiting.hold(realm, key, buffer, start, end);
    if (outcome === 'full') this.counters.dropWaitingFull++;
    if (outcome !== 'first') return;
    this.#admit(ingress, source, egress).then(
      () => this.#release(realm, key),
      () => {
        this.counters.dropNotAdmitted += this.#waiting.release(realm, key).length;
      }
    );
  }

  #release(realm: number, key: string): void {
    for (const packet of this.#waiting.release(realm, key)) {
      const verdict = this.#translate(realm, packet, 0, packet.length);
      if (verdict === Verdict.NeedsPresence) this.counters.dropNotAdmitted++;
      else this.#forward(realm, packet, 0, packet.length, verdict);
    }
    this.#flush();
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

function discard(): void {}
