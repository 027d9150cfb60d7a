/**
 * Shows the packets of chosen paths, before and after translation, to whoever wants to see them; and
 * writes them down as pcapng, which Wireshark opens.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkClock, checkFunction, checkObject } from '../base/option-check.ts';
import { PcapngWriter } from '../packet/pcapng.ts';
import { PATH_PAIR } from './layout.ts';
import type { PathStatus, PathTable } from './path-table.ts';
import { NO_PAIR } from './paths.ts';

export interface PacketCapture {
  /**
   * Whether packets of the path are shown; asked once for each path, and again after a new plan or after
   * very many other paths. It is asked for each packet that passes without a path that is kept.
   */
  wants(path: PathStatus): boolean;
  /**
   * Shows the packet `bytes[start .. end)`, without virtio-net header: as it came from the realm
   * (`inbound`), then as it goes into the other (`outbound`). The bytes are gone when the call returns.
   */
  packet(
    direction: 'inbound' | 'outbound',
    realm: string,
    bytes: Uint8Array,
    start: number,
    end: number
  ): void;
}

/** Where the translator calls its tap; costs nothing while there is none. */
export class CapturePoint {
  readonly #capture: PacketCapture;
  readonly #statusOf: (table: PathTable, path: number) => PathStatus;
  readonly #realmNames: readonly string[];
  /** The answers by `PATH_PAIR`, which stays a path's own as long as the path is there. */
  readonly #isWanted = new Map<number, boolean>();

  constructor(
    capture: PacketCapture,
    statusOf: (table: PathTable, path: number) => PathStatus,
    realmNames: readonly string[]
  ) {
    this.#capture = capture;
    this.#statusOf = statusOf;
    this.#realmNames = realmNames;
  }

  /** Asks about each path anew. */
  forget(): void {
    this.#isWanted.clear();
  }

  /** Shows the packet, if those of its path are wanted. Parameters as of `PacketCapture.packet`. */
  show(
    direction: 'inbound' | 'outbound',
    table: PathTable,
    path: number,
    realm: number,
    view: DataView,
    start: number,
    end: number
  ): void {
    const known = this.#isWanted;
    const pair = table.words[path * table.stride + table.keyWords + PATH_PAIR]!;
    let isWanted = pair === NO_PAIR ? undefined : known.get(pair);
    if (isWanted === undefined) {
      isWanted = this.#capture.wants(this.#statusOf(table, path));
      // Paths come and go; those that went are not told of here.
      if (known.size >= MAX_KNOWN) known.clear();
      known.set(pair, isWanted);
    }
    if (!isWanted) return;
    const bytes = new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
    this.#capture.packet(direction, this.#realmNames[realm]!, bytes, start, end);
  }
}

const MAX_KNOWN = 65_536;

export interface PcapngCaptureOptions {
  /** Takes the file, piece by piece. */
  readonly write: (bytes: Uint8Array) => void;
  /** All paths by default. */
  readonly wants?: (path: PathStatus) => boolean;
  /** Bytes of each packet that are written at most; all of them by default. */
  readonly snapLength?: number;
  /** Its wall clock is what the packets of the file have as their time. Default: that of the system. */
  readonly clock?: Clock;
}

/** Each realm is an interface of the file; a packet is in it twice, as it came and as it goes. */
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
