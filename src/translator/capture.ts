/**
 * Packet capture: shows the packets of chosen paths before and after translation, or writes them to a
 * pcapng file for Wireshark.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkClock, checkFunction, checkObject } from '../base/option-check.ts';
import { PcapngWriter } from '../packet/pcapng.ts';
import { PATH_PAIR } from './layout.ts';
import { NO_PAIR } from './path-pairs.ts';
import type { PathStatus, PathTable } from './path-table.ts';

export interface PacketCapture {
  /**
   * Decides whether to show the packets of a path. It is called once for each path, and again after a change of the
   * plan or after 65,536 other paths; for a packet whose path is not kept it is called each time.
   */
  wants(path: PathStatus): boolean;
  /**
   * Takes the packet `bytes[start .. end)`, without its virtio-net header: first as it came from the
   * ingress realm (`inbound`), then as it goes into the egress realm (`outbound`). The bytes are valid
   * only during the call.
   */
  packet(
    direction: 'inbound' | 'outbound',
    realm: string,
    bytes: Uint8Array,
    start: number,
    end: number
  ): void;
}

/** Calls the captures of the translator for the paths that they want. */
export class CapturePoint {
  readonly #captures: readonly PacketCapture[];
  readonly #statusOf: (table: PathTable, path: number) => PathStatus;
  readonly #realmNames: readonly string[];
  /** The captures that want a path, by `PATH_PAIR`, which does not change while the path exists. */
  readonly #wanting = new Map<number, readonly PacketCapture[]>();

  constructor(
    captures: readonly PacketCapture[],
    statusOf: (table: PathTable, path: number) => PathStatus,
    realmNames: readonly string[]
  ) {
    this.#captures = captures;
    this.#statusOf = statusOf;
    this.#realmNames = realmNames;
  }

  /** Forgets what `wants` returned, so that it is called again for each path. */
  forget(): void {
    this.#wanting.clear();
  }

  /** Shows the packet to the captures that want its path. The parameters are those of `PacketCapture.packet`. */
  show(
    direction: 'inbound' | 'outbound',
    table: PathTable,
    path: number,
    realm: number,
    view: DataView,
    start: number,
    end: number
  ): void {
    const known = this.#wanting;
    const pair = table.words[path * table.stride + table.keyWords + PATH_PAIR]!;
    let wanting = pair === NO_PAIR ? undefined : known.get(pair);
    if (wanting === undefined) {
      const status = this.#statusOf(table, path);
      wanting = this.#captures.filter((capture) => capture.wants(status));
      // The map does not learn which paths have ended, so it is bounded here.
      if (known.size >= MAX_KNOWN) known.clear();
      known.set(pair, wanting);
    }
    if (wanting.length === 0) return;
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    const name = this.#realmNames[realm]!;
    for (const capture of wanting) capture.packet(direction, name, bytes, start, end);
  }
}

const MAX_KNOWN = 65_536;

export interface PcapngCaptureOptions {
  /** Takes the next bytes of the file. */
  readonly write: (bytes: Uint8Array) => void;
  /** Decides which paths to capture. Default: all. */
  readonly wants?: (path: PathStatus) => boolean;
  /** The number of bytes of each packet to write at most. Default: all of them. */
  readonly snapLength?: number;
  /** The clock whose wall time is written as the time of the packets. Default: the system's clock. */
  readonly clock?: Clock;
}

/**
 * Writes packets to a pcapng file. Each realm is an interface of the file. Each packet is written twice:
 * as it came, and as it leaves.
 */
export class PcapngCapture implements PacketCapture {
  readonly wants: (path: PathStatus) => boolean;
  readonly #writer: PcapngWriter;
  readonly #clock: Clock;
  readonly #interfaces = new Map<string, number>();

  /** @throws {ApiMisuseError} naming the option that is wrong. */
  constructor(options: PcapngCaptureOptions) {
    const { write, snapLength, wants = () => true } = checkObject('options', options);
    checkFunction('write', write);
    this.wants = checkFunction('wants', wants);
    this.#writer = new PcapngWriter(snapLength === undefined ? { write } : { write, snapLength });
    this.#clock = checkClock(options.clock);
  }

  packet(
    direction: 'inbound' | 'outbound',
    realm: string,
    bytes: Uint8Array,
    start: number,
    end: number
  ): void {
    let number = this.#interfaces.get(realm);
    if (number === undefined) {
      number = this.#writer.interface(realm);
      this.#interfaces.set(realm, number);
    }
    this.#writer.packet(number, this.#clock.wallMs(), direction, bytes, start, end);
  }
}
