/**
 * Random segments for a TCB: right ones, slightly wrong ones, and wildly wrong ones. Sequence and acknowledgment numbers
 * are near the edges at which decisions change.
 *
 * The peer is consistent in one thing: the octet at a sequence number, and the place of its FIN, are always the same.
 * Where they are not, the RFC fixes nothing.
 * @module
 */
import type { Random } from '../../support/random.ts';
import { type Control, type Options, type Segment, segmentOf } from './segment.ts';
import { minus, plus } from './sequence.ts';
import type { Tcb } from './tcb.ts';

export interface PeerTraits {
  readonly iss: number;
  /** How many octets of text come before FIN. */
  readonly textLength: number;
  readonly mss: number;
  readonly windowScale: number | undefined;
  readonly usesTimestamps: boolean;
  readonly isSackPermitted: boolean;
}

export function peerTraits(random: Random): PeerTraits {
  return {
    iss: random.chance(0.5) ? 2 ** 32 - 1 - random.below(4000) : random.below(2 ** 32),
    textLength: random.below(6000),
    mss: random.pick([536, 1000, 1460]),
    windowScale: random.chance(0.5) ? random.below(8) : undefined,
    usesTimestamps: random.chance(0.5),
    isSackPermitted: random.chance(0.5),
  };
}

/** What the peer's octet at a sequence number is. */
export function octetAt(sequence: number): number {
  return (Math.imul(sequence, 0x9e3779b1) >>> 24) & 255;
}

/** A segment that may arrive now. `clock`: what the peer's timestamps say. */
export function arrival(random: Random, peer: PeerTraits, tcb: Tcb, clock: number): Segment {
  const make = new Arrival(random, peer, tcb, clock);
  if (tcb.state === 'LISTEN' || tcb.state === 'SYN-SENT' || tcb.state === 'CLOSED') {
    return make.opening();
  }
  const kind = random.next();
  if (kind < 0.55) return make.right();
  return kind < 0.9 ? make.slightlyWrong() : make.wild();
}

class Arrival {
  readonly #random: Random;
  readonly #peer: PeerTraits;
  readonly #tcb: Tcb;
  readonly #clock: number;

  constructor(random: Random, peer: PeerTraits, tcb: Tcb, clock: number) {
    this.#random = random;
    this.#peer = peer;
    this.#tcb = tcb;
    this.#clock = clock;
  }

  /** For LISTEN and SYN-SENT: mostly what opens. */
  opening(): Segment {
    const random = this.#random;
    const isActive = this.#tcb.state === 'SYN-SENT';
    const isAcknowledging = isActive ? random.chance(0.7) : random.chance(0.1);
    const CTL: Control[] = isAcknowledging ? ['SYN', 'ACK'] : ['SYN'];
    const others: readonly Control[] = ['RST', 'PSH', 'URG'];
    const hasText = this.#peer.textLength > 0;
    if (random.chance(0.1)) CTL.push(random.pick(hasText ? others : [...others, 'FIN' as const]));
    if (random.chance(0.1)) CTL.splice(0, 1);
    return segmentOf({
      SEQ: this.#peer.iss,
      ACK: isActive && random.chance(0.8) ? this.#tcb.SND.NXT : this.#acknowledgment(),
      CTL,
      WND: this.#window(),
      options: this.#synOptions(),
    });
  }

  /** The next text, text out of order, an ACK, FIN. */
  right(): Segment {
    const random = this.#random;
    const { RCV } = this.#tcb;
    const gap = random.chance(0.25) ? random.below(1 + Math.min(RCV.WND, 4000)) : 0;
    const SEQ = plus(RCV.NXT, gap);
    const room = Math.max(0, RCV.WND - gap);
    const length = random.chance(0.4) ? 0 : Math.min(room, random.below(1 + this.#peer.mss));
    return this.#withText(SEQ, length, ['ACK'], {
      ACK: this.#acknowledgmentInWindow(),
      WND: this.#window(),
    });
  }

  /** A right segment with one or two fields at the wrong side of an edge. */
  slightlyWrong(): Segment {
    const random = this.#random;
    const right = this.right();
    const fields: { -readonly [Key in keyof Segment]?: Segment[Key] } = {};
    for (let count = random.between(1, 2); count > 0; count--) {
      switch (random.below(5)) {
        case 0:
          return this.#withText(this.#sequence(), right.text.length, right.CTL, {
            ...right,
            ...fields,
          });
        case 1:
          fields.ACK = this.#acknowledgment();
          break;
        case 2:
          fields.CTL = [random.pick(['RST', 'SYN', 'URG'] as const), ...right.CTL];
          break;
        case 3:
          fields.CTL = random.pick([[], ['RST'], ['SYN'], ['FIN', 'RST', 'ACK']] as const);
          break;
        default:
          fields.options = this.#options(true);
      }
    }
    return this.#reformed({ ...right, ...fields });
  }

  wild(): Segment {
    const random = this.#random;
    const bits: readonly Control[] = ['SYN', 'RST', 'ACK', 'PSH', 'URG', 'FIN'];
    const CTL = bits.filter((bit) => random.chance(bit === 'ACK' ? 0.7 : 0.25));
    const length = random.pick([0, 0, 1, random.below(70), this.#peer.mss]);
    const SEQ = random.chance(0.5) ? this.#sequence() : random.below(2 ** 32);
    return this.#withText(SEQ, length, CTL, {
      ACK: random.chance(0.5) ? this.#acknowledgment() : random.below(2 ** 32),
      WND: this.#window(),
      UP: random.below(100),
      options: this.#options(random.chance(0.3)),
    });
  }

  /**
   * A segment with as much text as there is at this place in front of FIN, which is put behind the last octet; a FIN
   * elsewhere is left out.
   */
  #withText(
    SEQ: number,
    length: number,
    controls: readonly Control[],
    fields: Partial<Segment>
  ): Segment {
    const start = plus(SEQ, controls.includes('SYN') ? 1 : 0);
    const finAt = plus(this.#peer.iss, 1 + this.#peer.textLength);
    const left = minus(finAt, start);
    // Outside of the text, octets are free: they are old ones, from in front of the SYN, or never come into the window.
    const isInside = left <= this.#peer.textLength;
    const isBehind = !isInside && minus(start, finAt) < 2 ** 30;
    // Behind a FIN that was processed no text counts.
    const size =
      isBehind && !this.#tcb.RCV.isFinished ? 0 : isInside ? Math.min(length, left) : length;
    const isLast = isInside && size === left;
    const CTL = controls.filter((control) => control !== 'FIN');
    const hasFin = isLast && (controls.includes('FIN') || this.#random.chance(0.5));
    return segmentOf({
      options: this.#options(false),
      ...fields,
      SEQ,
      CTL: hasFin ? [...CTL, 'FIN'] : CTL,
      text: Array.from({ length: size }, (_, index) => octetAt(plus(start, index))),
    });
  }

  /** The same segment with a FIN only where it belongs, and no text where SYN moved it. */
  #reformed(segment: Segment): Segment {
    return this.#withText(segment.SEQ, segment.text.length, segment.CTL, segment);
  }

  #sequence(): number {
    const { NXT, WND } = this.#tcb.RCV;
    const near = this.#random.pick([0, WND, -WND, -1 - this.#random.below(3000), HALF]);
    return plus(NXT, near + this.#random.between(-2, 2));
  }

  #acknowledgment(): number {
    const { UNA, NXT, MAX_WND } = this.#tcb.SND;
    const base = this.#random.pick([UNA, NXT, plus(UNA, -MAX_WND), plus(NXT, HALF)]);
    return plus(base, this.#random.between(-2, 2));
  }

  #acknowledgmentInWindow(): number {
    const { UNA, NXT } = this.#tcb.SND;
    const outstanding = minus(NXT, UNA);
    if (this.#random.chance(0.5)) return NXT;
    return plus(UNA, this.#random.below(outstanding + 1));
  }

  #window(): number {
    const shift = this.#tcb.SND.shift;
    if (this.#random.chance(0.7)) return Math.floor(30_000 / 2 ** shift);
    return this.#random.pick([0, 1, 2, this.#random.below(2000), 65_535]);
  }

  #synOptions(): Options {
    const { mss, windowScale, usesTimestamps, isSackPermitted } = this.#peer;
    return {
      mss,
      ...(windowScale === undefined ? {} : { windowScale }),
      ...(usesTimestamps ? { timestamps: { TSval: this.#clock, TSecr: 0 } } : {}),
      ...(isSackPermitted ? { isSackPermitted } : {}),
    };
  }

  /** Timestamps, if they are used; `isWrong`: perhaps old ones, or none. */
  #options(isWrong: boolean): Options {
    const { TS } = this.#tcb;
    if (!TS.isUsed) return {};
    if (!isWrong) return { timestamps: { TSval: this.#clock, TSecr: 0 } };
    const random = this.#random;
    if (random.chance(0.1)) return {};
    const offset = random.pick([0, -1, 1, -1000, 2 ** 31 - 1, 2 ** 31 + 5]);
    const TSval = plus(random.pick([TS.Recent, this.#clock]), offset);
    // A timestamp far ahead would make all right ones old.
    const isFarAhead = minus(TSval, this.#clock) > 0 && minus(TSval, this.#clock) < 2 ** 31;
    return { timestamps: { TSval: isFarAhead ? this.#clock : TSval, TSecr: 0 } };
  }
}

/** Half a turn away, but not exactly, where neither number is the larger one. */
const HALF: number = 2 ** 31 + 1000;
