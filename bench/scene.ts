/**
 * The packets of the clients of a world in one buffer, and the loop that translates them in batches, as a data
 * plane does: requests for some clients, then the answers for the same ones.
 * `translator-main.c` is the same in C.
 * @module
 */
import { type PacketTranslator, TRANSLATION_HEADROOM } from '../src/translator/index.ts';
import { TCP, UDP } from '../test/support/packets.ts';
import { Random } from '../test/support/random.ts';
import {
  BATCH,
  CACHE_LINE_BITS,
  ERROR_HEADERS,
  FORWARD,
  MAX_CLASSES,
  SCHEDULE_LENGTH,
  TRIPS_PER_LOOK_AT_THE_CLOCK,
  VNET_LENGTH,
} from './layout.ts';
import { type Shape, TCP_PORT, UDP_PORT } from './shapes.ts';
import { MTU, type Side, type World } from './world.ts';

/** A frame that enters from a realm: a virtio-net header and the packet. */
export interface Arrival {
  readonly realm: 'near' | 'far';
  readonly frame: Uint8Array;
}

/** A scene has little-endian words stored into packets, so it is for machines that do so. */
export class Scene {
  readonly world: World;
  readonly shape: Shape;
  readonly translator: PacketTranslator;
  readonly #nearRealm: number;
  readonly #farRealm: number;
  /** Bytes that a packet forth moves by: the IPv6 header is longer. */
  readonly #shift: number;

  /** Slots of one size each: headroom, a virtio-net header, a packet. */
  readonly #buffer: Uint8Array;
  readonly #words: Int32Array;
  /** The buffer as it was built: slot `n` has a packet of client `n % classes`. */
  readonly #image: Uint8Array;
  /** Where each slot's packet is, see `placeOf`. */
  readonly #places: Int32Array;
  /** The place by turn: of a random slot of the class whose turn it is. */
  readonly #schedule: Int32Array;
  #turn = 0;
  #client = 0;

  constructor(world: World, shape: Shape, translator: PacketTranslator) {
    this.world = world;
    this.shape = shape;
    this.translator = translator;
    this.#nearRealm = translator.realm('near');
    this.#farRealm = translator.realm('far');
    this.#shift = HEADER_LENGTH[shape.near] - HEADER_LENGTH[shape.far];

    const slotsOfClass = Math.max(shape.frames.length, LEAST_SLOTS_OF_CLASS);
    const frames = Array.from({ length: slotsOfClass * MAX_CLASSES }, (_, slot) => {
      const build = shape.frames[Math.floor(slot / MAX_CLASSES) % shape.frames.length]!;
      const source = world.near.client(slot % world.classes);
      return build({ source, destination: world.near.service });
    });
    const size = slotSize(Math.max(...frames.map(({ length }) => length)));
    this.#image = new Uint8Array(frames.length * size);
    this.#places = Int32Array.from(frames, (frame, slot) => {
      const start = slot * size + ROOM_IN_FRONT;
      this.#image.set(frame, start - VNET_LENGTH);
      return placeOf(start, frame.length - VNET_LENGTH);
    });
    this.#buffer = this.#image.slice();
    this.#words = new Int32Array(this.#buffer.buffer);
    const random = new Random(frames.length);
    this.#schedule = Int32Array.from(
      { length: SCHEDULE_LENGTH },
      (_, turn) => this.#places[(turn % MAX_CLASSES) + MAX_CLASSES * random.below(slotsOfClass)]!
    );
  }

  /** Sends a packet forth and back for every client, in the order of the plan. */
  open(): void {
    const { near, far, clientCount } = this.world;
    this.#check(this.#trips(clientCount, 0, near.clients, far.clients, 0));
  }

  /** Clients take turns for the time given; returns ns of CPU time per translated packet. */
  run(leastMs: number): number {
    const { near, far, clientCount } = this.world;
    const count = TRIPS_PER_LOOK_AT_THE_CLOCK;
    let others = 0;
    let trips = 0;
    let elapsed = 0;
    const from = process.cpuUsage();
    do {
      const [turn, client] = [this.#turn, this.#client];
      others += this.#trips(count, turn, near.clientsByTurn, far.clientsByTurn, client);
      this.#turn = (turn + count) % SCHEDULE_LENGTH;
      this.#client = (client + count) % clientCount;
      trips += count;
      elapsed = cpuMs(from);
      this.translator.advance(Math.floor(performance.now()));
    } while (elapsed < leastMs);
    this.#check(others);
    return (elapsed * 1e6) / (2 * trips);
  }

  /** The first packets that `open` sends: a packet forth, the packet back, the next one forth. */
  arrivals(trips: number): Arrival[] {
    const { near, far, clientCount } = this.world;
    const arrivals: Arrival[] = [];
    for (let trip = 0; trip < trips; trip++) {
      const turn = trip % SCHEDULE_LENGTH;
      const client = trip % clientCount;
      const start = startOf(this.#schedule[turn]!);
      const end = endOf(this.#schedule[turn]!);
      this.#put(turn, 1, near, near.clients, client, true);
      arrivals.push({ realm: 'near', frame: this.#buffer.slice(start - VNET_LENGTH, end) });
      this.#translate(this.#nearRealm, turn, 1, 0, this.#shift);
      this.#put(turn, 1, far, far.clients, client, false);
      const frame = this.#buffer.slice(start + this.#shift - VNET_LENGTH, end);
      arrivals.push({ realm: 'far', frame });
      this.#translate(this.#farRealm, turn, 1, this.#shift, 0);
    }
    return arrivals;
  }

  /** What `read_scene` of `translator-main.c` reads. */
  encode(): Uint8Array {
    const { clientCount, near, far } = this.world;
    const bool = (value: boolean): number => (value ? 1 : 0);
    const side = ({
      family,
      clientWords,
      serviceWords,
      clients,
      clientsByTurn,
    }: Side): Int32Array[] => [
      Int32Array.of(family),
      clientWords,
      serviceWords,
      clients,
      clientsByTurn,
    ];
    const head = [
      clientCount,
      this.#schedule.length,
      bool(this.shape.isError),
      this.#image.length,
      TRANSLATION_HEADROOM,
      this.#shift,
      MTU,
      UDP_TIMEOUT_MS,
      clientCount + SPARE_SESSIONS,
      RULES.length,
      ...RULES.flat(),
      FORTH_RULE,
      BACK_RULE,
    ];
    const parts = [
      Int32Array.from(head),
      ...side(near),
      ...side(far),
      this.#schedule,
      new Int32Array(this.#image.buffer),
    ];
    return Buffer.concat(parts.map(({ buffer }) => new Uint8Array(buffer)));
  }

  /** Returns the number of packets that were not forwarded. */
  #trips(
    count: number,
    turn: number,
    nearClients: Int32Array,
    farClients: Int32Array,
    client: number
  ): number {
    const { near, far } = this.world;
    const shift = this.#shift;
    let others = 0;
    for (let from = 0; from < count; from += BATCH) {
      const size = Math.min(BATCH, count - from);
      this.#put(turn, size, near, nearClients, client, true);
      others += this.#translate(this.#nearRealm, turn, size, 0, shift);
      this.#put(turn, size, far, farClients, client, false);
      others += this.#translate(this.#farRealm, turn, size, shift, 0);
      turn = (turn + BATCH) % SCHEDULE_LENGTH;
      client = (client + BATCH) % nearClients.length;
    }
    return others;
  }

  /** Writes the addresses into a batch: of client `client`, and of the next ones. */
  #put(
    turn: number,
    size: number,
    side: Side,
    clients: Int32Array,
    client: number,
    isForth: boolean
  ): void {
    const words = this.#words;
    const schedule = this.#schedule;
    const { serviceWords, clientWords } = side;
    const service = serviceWords[3]!;
    const first = turn | 0;
    const count = size | 0;
    const clientCount = clients.length | 0;
    const shift = isForth ? 0 : this.#shift | 0;
    let next = client | 0;
    if (side.family === 6) {
      const toClient = (shift >> 2) + (isForth ? 2 : 6);
      const toService = (shift >> 2) + (isForth ? 6 : 2);
      for (let n = 0; n < count; n++) {
        const packet = ((schedule[first + n]! >>> 16) << CACHE_LINE_BITS) >> 2;
        words[packet + toClient] = clientWords[0]!;
        words[packet + toClient + 1] = clientWords[1]!;
        words[packet + toClient + 2] = clientWords[2]!;
        words[packet + toClient + 3] = clients[next]!;
        words[packet + toService] = serviceWords[0]!;
        words[packet + toService + 1] = serviceWords[1]!;
        words[packet + toService + 2] = serviceWords[2]!;
        words[packet + toService + 3] = service;
        if (++next === clientCount) next = 0;
      }
      return;
    }
    const toClient = (shift >> 2) + (isForth ? 3 : 4);
    const toService = (shift >> 2) + (isForth ? 4 : 3);
    const begin = next;
    for (let n = 0; n < count; n++) {
      const packet = ((schedule[first + n]! >>> 16) << CACHE_LINE_BITS) >> 2;
      words[packet + toClient] = clients[next]!;
      words[packet + toService] = service;
      if (++next === clientCount) next = 0;
    }
    if (!this.shape.isError) return;
    // An error quotes what the other end has sent.
    next = begin;
    for (let n = 0; n < count; n++) {
      const quote = (((schedule[first + n]! >>> 16) << CACHE_LINE_BITS) + ERROR_HEADERS) >> 2;
      words[quote + toService] = clients[next]!;
      words[quote + toClient] = service;
      if (++next === clientCount) next = 0;
    }
  }

  /**
   * Translates a batch; returns how many packets were not forwarded, or not from where and to where they
   * should be.
   */
  #translate(realm: number, turn: number, size: number, shift: number, newShift: number): number {
    const { translator } = this;
    const buffer = this.#buffer;
    const schedule = this.#schedule;
    const headroom = TRANSLATION_HEADROOM | 0;
    const first = turn | 0;
    const count = size | 0;
    const before = shift | 0;
    const after = newShift | 0;
    let others = 0;
    for (let n = 0; n < count; n++) {
      const place = schedule[first + n]!;
      const slot = ((place >>> 16) << CACHE_LINE_BITS) | 0;
      const start = (slot + before) | 0;
      const end = (slot + (place & 0xffff)) | 0;
      const vnet = (start - VNET_LENGTH) | 0;
      const verdict = translator.translate(realm, buffer, start, end, vnet, headroom);
      if (
        verdict !== FORWARD ||
        translator.start !== slot + after ||
        translator.end !== end ||
        translator.vnet !== slot + after - VNET_LENGTH
      ) {
        others++;
      }
    }
    return others;
  }

  /** Checks that the packets have their first content again after both directions. */
  #check(others: number): void {
    if (others > 0) {
      const verdicts = [this.#nearRealm, this.#farRealm].map((realm) =>
        Object.entries(this.translator.counters(realm)).filter(([, count]) => count > 0)
      );
      const text = `${others} packets were not forwarded: ${JSON.stringify(verdicts)}`;
      throw new Error(`${this.shape.name}: ${text}`);
    }
    const { near, far, classes } = this.world;
    const places = new Map([...this.#schedule.entries()].map(([turn, place]) => [place, turn]));
    for (const [slot, place] of this.#places.entries()) {
      const start = startOf(place);
      const end = endOf(place);
      const turn = places.get(place);
      if (turn === undefined) continue;
      this.#put(turn, 1, near, near.clients, slot % classes, true);
      const before = this.#image.slice(start - VNET_LENGTH, end);
      const after = this.#buffer.slice(start - VNET_LENGTH, end);
      if (near.family === 4 && far.family === 6) {
        // There is no identification and no DF in IPv6.
        for (const frame of [before, after]) {
          frame
            .fill(0, VNET_LENGTH + 4, VNET_LENGTH + 8)
            .fill(0, VNET_LENGTH + 10, VNET_LENGTH + 12);
        }
      }
      if (Buffer.compare(before, after) !== 0) {
        throw new Error(`${this.shape.name}: a packet came back changed`);
      }
    }
  }
}

/** Where a packet begins, in cache lines, and its length, as one word: each access to an array counts. */
function placeOf(start: number, length: number): number {
  return ((start >>> CACHE_LINE_BITS) << 16) | length;
}

function startOf(place: number): number {
  return (place >>> 16) << CACHE_LINE_BITS;
}

function endOf(place: number): number {
  return startOf(place) + (place & 0xffff);
}

/** CPU time since then, which other programs on the machine do not lengthen. */
export function cpuMs(from: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(from);
  return (user + system) / 1e3;
}

/** An odd number of cache lines, so that slots do not meet in the same sets of a cache. */
function slotSize(frameLength: number): number {
  const lines = Math.ceil((ROOM_IN_FRONT + frameLength) / CACHE_LINE);
  return (lines | 1) * CACHE_LINE;
}

const HEADER_LENGTH = { 4: 20, 6: 40 } as const;
const CACHE_LINE: number = 1 << CACHE_LINE_BITS;
/** Packets begin at a cache line; in front are the headroom and the virtio-net header. */
const ROOM_IN_FRONT: number =
  Math.ceil((TRANSLATION_HEADROOM + VNET_LENGTH) / CACHE_LINE) * CACHE_LINE;
const LEAST_SLOTS_OF_CLASS = 3;
/** The policy of a world for the C rival: protocol, side, first and last port. */
const REQUEST = 1;
const REPLY = 2;
const RULES: readonly (readonly number[])[] = [
  [TCP, REQUEST, TCP_PORT, TCP_PORT],
  [UDP, REQUEST, UDP_PORT, UDP_PORT],
  [0, 0, 0, 0],
  [TCP, REPLY, TCP_PORT, TCP_PORT],
  [UDP, REPLY, UDP_PORT, UDP_PORT],
  [0, 0, 0, 0],
];
const FORTH_RULE = 0;
const BACK_RULE = 3;
/** The default of the translator. */
const UDP_TIMEOUT_MS = 300_000;
/** Sessions for the damaged packets of a check. */
const SPARE_SESSIONS = 10_000;
