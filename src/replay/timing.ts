/**
 * Times `PacketTranslator.translate` on the packets of a sample. A round
 *
 * 1. copies the heads of 64 packets into slots, which stay in the processor's cache as the buffer of a device does;
 * 2. translates them there, and goes on with the next 64.
 *
 * The same round without its second step is measured too, and subtracted. A third one copies the whole packets, for
 * comparison. The three take turns. Times are the CPU time of the process, which other programs do not lengthen, and
 * medians of the rounds.
 * @module
 */
import { type PacketTranslator, TRANSLATION_HEADROOM } from '../translator/index.ts';
import { type PacketSample, SIZE_CLASSES, SLOTS_BYTES } from './packet-sample.ts';

/** How long to measure each class of packets. */
export interface TimingEffort {
  readonly rounds: number;
  /** The CPU time that a round takes at least, in ms. */
  readonly roundMs: number;
}

/** What the command does without `--quick`. */
export const TIMING_DEFAULTS: Readonly<TimingEffort> = Object.freeze({ rounds: 9, roundMs: 20 });

/** For a first look. */
export const QUICK_TIMING: Readonly<TimingEffort> = Object.freeze({ rounds: 3, roundMs: 3 });

/** What the packets of one class, or all, take. */
export interface ClassTime {
  /** One of `SIZE_CLASSES`, or `all`. */
  readonly name: string;
  /** How many packets were timed, again and again. */
  readonly packets: number;
  /** Their mean length in bytes. */
  readonly meanBytes: number;
  /** CPU time of `translate` for a packet, in ns. */
  readonly nsPerPacket: number;
  /** Packets that one core translates in a second. */
  readonly packetsPerSecond: number;
  /** CPU time for a copy of a whole packet in memory, in ns. */
  readonly copyNsPerPacket: number;
}

export interface Timing {
  /** All packets in the order of the capture; absent if there are none. */
  readonly all?: ClassTime;
  /** The classes that have packets. */
  readonly classes: readonly ClassTime[];
  /**
   * Packets that were left out, because they get another verdict when they come again, for example a reply whose request
   * is not in the sample.
   */
  readonly leftOut: number;
}

export function timePackets(
  sample: PacketSample,
  translator: PacketTranslator,
  effort: TimingEffort
): Timing {
  const runner = new SampleRunner(sample, translator);
  const stable = runner.stable();
  const names = SIZE_CLASSES.map((name, index) => ({
    name,
    list: stable.filter((i) => sample.classes[i] === index),
  }));
  // The translator is compiled for what it has processed, so that all packets come first.
  const all = runner.time('all', stable, effort);
  const classes = names.flatMap(({ name, list }) => runner.time(name, list, effort) ?? []);
  return { ...(all && { all }), classes, leftOut: sample.size - stable.length };
}

/** Runs through packets of a sample. */
class SampleRunner {
  readonly #sample: PacketSample;
  readonly #translator: PacketTranslator;

  constructor(sample: PacketSample, translator: PacketTranslator) {
    this.#sample = sample;
    this.#translator = translator;
  }

  /** Returns the numbers of the packets that have the same verdict when all come twice again. */
  stable(): Int32Array {
    const { size, verdicts } = this.#sample;
    const isStable = new Uint8Array(size).fill(1);
    for (let n = 0; n < 2; n++) {
      for (let i = 0; i < size; i++) {
        if (this.#translate(i, this.#copyHead(i, 0)) !== verdicts[i]) isStable[i] = 0;
      }
    }
    return Int32Array.from(isStable.keys()).filter((i) => isStable[i] === 1);
  }

  /** Returns undefined if there are no packets. */
  time(name: string, list: Int32Array, { rounds, roundMs }: TimingEffort): ClassTime | undefined {
    if (list.length === 0) return undefined;
    const { lengths, headLengths } = this.#sample;
    // A long head needs the slots of others.
    const short = list.filter((i) => headLengths[i]! <= SLOT_BYTES - TRANSLATION_HEADROOM);
    const long = list.filter((i) => headLengths[i]! > SLOT_BYTES - TRANSLATION_HEADROOM);
    const count = list.length;
    const heads = () => this.#heads(short, long, false);
    const translated = () => this.#heads(short, long, true);
    const copies = () => this.#copies(list);
    const own: number[] = [];
    const copied: number[] = [];
    // The code that is timed is compiled first.
    nsPerPacket(translated, count, WARM_UP_ROUNDS * roundMs);
    for (let round = 0; round < rounds; round++) {
      const headNs = nsPerPacket(heads, count, roundMs / 2);
      const ns = nsPerPacket(translated, count, roundMs);
      const copyNs = nsPerPacket(copies, count, roundMs / 2);
      own.push(Math.max(0, ns - headNs));
      copied.push(copyNs);
    }
    const ns = median(own);
    return {
      name,
      packets: count,
      meanBytes: list.reduce((sum, i) => sum + lengths[i]!, 0) / count,
      nsPerPacket: ns,
      packetsPerSecond: ns > 0 ? 1e9 / ns : 0,
      copyNsPerPacket: median(copied),
    };
  }

  /** Copies the heads of packets, and translates the packets if asked to. */
  #heads(short: Int32Array, long: Int32Array, isTranslated: boolean): void {
    for (let from = 0; from < short.length; from += SLOTS) {
      const to = Math.min(from + SLOTS, short.length);
      for (let n = from; n < to; n++) this.#copyHead(short[n]!, (n - from) * SLOT_BYTES);
      if (!isTranslated) continue;
      for (let n = from; n < to; n++) {
        this.#translate(short[n]!, (n - from) * SLOT_BYTES + TRANSLATION_HEADROOM);
      }
    }
    for (let n = 0; n < long.length; n++) {
      const start = this.#copyHead(long[n]!, 0);
      if (isTranslated) this.#translate(long[n]!, start);
    }
  }

  #copies(list: Int32Array): void {
    const { buffer, starts, lengths } = this.#sample;
    for (let n = 0; n < list.length; n++) {
      const i = list[n]!;
      const slot = lengths[i]! > SLOT_BYTES ? 0 : (n % SLOTS) * SLOT_BYTES;
      buffer.copyWithin(slot, starts[i]!, starts[i]! + lengths[i]!);
    }
  }

  /** Returns where the packet begins now. What the translator does not look at is not copied. */
  #copyHead(index: number, slot: number): number {
    const { buffer, starts, headLengths } = this.#sample;
    const from = starts[index]!;
    const start = slot + TRANSLATION_HEADROOM;
    buffer.copyWithin(start, from, from + headLengths[index]!);
    return start;
  }

  #translate(index: number, start: number): number {
    const { buffer, lengths, realms } = this.#sample;
    const end = start + lengths[index]!;
    return this.#translator.translate(realms[index]!, buffer, start, end, -1, TRANSLATION_HEADROOM);
  }
}

/** Runs for the CPU time given; returns that of a packet in ns. */
function nsPerPacket(run: () => void, packets: number, leastMs: number): number {
  const repeats = Math.max(1, Math.ceil(PACKETS_PER_LOOK / packets));
  const from = process.cpuUsage();
  let count = 0;
  let elapsedUs = 0;
  do {
    for (let n = 0; n < repeats; n++) run();
    count += repeats * packets;
    const { user, system } = process.cpuUsage(from);
    elapsedUs = user + system;
  } while (elapsedUs < leastMs * 1e3);
  return (elapsedUs * 1e3) / count;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

const WARM_UP_ROUNDS = 10;
const SLOT_BYTES = 2048;
const SLOTS: number = SLOTS_BYTES / SLOT_BYTES;
/** How many packets are processed between two looks at the clock. */
const PACKETS_PER_LOOK = 4096;
