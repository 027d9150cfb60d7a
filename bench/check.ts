/**
 * Checks that the translator, its C rival and the oracle give the same results for the same packets, intact and damaged.
 * @module
 */
import {
  type PacketTranslator,
  TRANSLATION_HEADROOM,
  VERDICT_NAMES,
  Verdict,
} from '../src/translator/index.ts';
import { NaiveTranslator } from '../test/oracle/translate.ts';
import { repairIpv4Checksum } from '../test/support/packets.ts';
import { Random } from '../test/support/random.ts';
import { VNET } from '../test/support/vnet.ts';
import { type RivalProgram, type RivalResult, SLOW } from './rival.ts';
import { type Arrival, Scene } from './scene.ts';
import type { Shape } from './shapes.ts';
import { World } from './world.ts';

export interface CheckCount {
  readonly packets: number;
  /** The number of packets that all three forwarded. */
  readonly forwarded: number;
  /** The number of packets that the rival does not handle. */
  readonly leftOut: number;
}

/**
 * Translates packets of the shape, then damaged ones, with all three.
 *
 * @throws {Error} if they differ; it shows the first such packet.
 */
export function checkShape(program: RivalProgram, shape: Shape, trips: number): CheckCount {
  const world = new World(2 * CLIENTS, shape.near, shape.far);
  const scene = new Scene(world, shape, world.load());
  const whole = scene.arrivals(trips);
  const changesVersion = shape.near !== shape.far;
  // If the virtio-net header moves, its unused fields are undefined.
  const arrivals = [...whole, ...damaged(whole, changesVersion ? VNET : 0)];
  const rivalResults = program.translate(scene, arrivals);
  const translator = world.load();
  const oracle = new NaiveTranslator(world.plan());

  let forwarded = 0;
  let leftOut = 0;
  for (const [i, arrival] of arrivals.entries()) {
    const result = translate(translator, arrival);
    const rival = rivalResults[i]!;
    const naive = oracle.translate(arrival.realm, arrival.frame);
    if (result.verdict === Verdict.Forward) forwarded++;
    if (VERDICT_NAMES[result.verdict] !== naive.verdict) fail(shape, i, arrival, result, naive);
    if (naive.frame && Buffer.compare(result.frame, naive.frame) !== 0) {
      fail(shape, i, arrival, result, naive);
    }
    if (rival.verdict === SLOW && i >= whole.length) {
      leftOut++;
      continue;
    }
    // The rival does not count the identifications of packets that it does not handle.
    const known = changesVersion && i >= whole.length ? withoutIdentification : asItIs;
    const isSame =
      result.verdict === rival.verdict &&
      (result.verdict !== Verdict.Forward ||
        (result.egress === rival.egress &&
          Buffer.compare(known(result.frame), known(rival.frame)) === 0));
    if (!isSame) fail(shape, i, arrival, result, rival);
  }
  return { packets: arrivals.length, forwarded, leftOut };
}

function translate(translator: PacketTranslator, { realm, frame }: Arrival): RivalResult {
  const vnet = TRANSLATION_HEADROOM;
  const buffer = new Uint8Array(vnet + frame.length);
  buffer.set(frame, vnet);
  const index = translator.realm(realm);
  const { length } = buffer;
  const headroom = TRANSLATION_HEADROOM;
  const verdict = translator.translate(index, buffer, vnet + VNET, length, vnet, headroom);
  if (verdict !== Verdict.Forward) return { verdict, egress: 0, frame: buffer.subarray(vnet) };
  const egress = translator.realmName(translator.egress) === 'near' ? 0 : 1;
  return { verdict, egress, frame: buffer.slice(translator.vnet, translator.end) };
}

/** Each frame with one byte of its headers, from `first` on, changed; half of them with a correct header checksum. */
function damaged(arrivals: readonly Arrival[], first: number): Arrival[] {
  const random = new Random(arrivals.length);
  return arrivals.map(({ realm, frame: whole }) => {
    const frame = whole.slice();
    const at = random.between(first, Math.min(frame.length, HEADERS) - 1);
    frame[at] = random.chance(0.5) ? random.below(256) : frame[at]! ^ (1 << random.below(8));
    if (random.chance(0.5)) repairIpv4Checksum(frame.subarray(VNET));
    return { realm, frame };
  });
}

function asItIs(frame: Uint8Array): Uint8Array {
  return frame;
}

function withoutIdentification(frame: Uint8Array): Uint8Array {
  if (frame[VNET]! >> 4 !== 4) return frame;
  return frame
    .slice()
    .fill(0, VNET + 4, VNET + 6)
    .fill(0, VNET + 10, VNET + 12);
}

function fail(shape: Shape, index: number, arrival: Arrival, a: Shown, b: Shown): never {
  const show = ({ frame, ...rest }: Shown): string => {
    const bytes = frame && Buffer.from(frame).toString('hex', 0, SHOWN);
    return JSON.stringify({ ...rest, bytes });
  };
  const lines = [arrival, a, b].map(show).join('\n');
  throw new Error(`${shape.name}, packet ${index}: results differ\n${lines}`);
}

interface Shown {
  readonly frame?: Uint8Array;
}

const CLIENTS = 64;
/** Bytes in which the damage is: a virtio-net header, an error and what it quotes of a datagram. */
const HEADERS: number = VNET + 28 + 28;
const SHOWN = 128;
