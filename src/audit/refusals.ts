/**
 * Limits the lines that refused peers can cause: anybody who reaches the port can have a handshake refused,
 * as often as they like. Unauthenticated peers share one limit. Peers that have proved who they are each have a limit
 * of their own, so that unauthenticated peers cannot keep a known offender out of the log.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkWhole } from '../base/option-check.ts';

export interface RefusalLimits {
  /**
   * Lines for refused handshakes and enrolments of unauthenticated peers in a minute, all together; the others are
   * summed up in one line when it is over. Default 60.
   */
  readonly maxRefusalsPerMinute?: number | undefined;
  /**
   * The same for each peer that has proved who it is, by the event's `site`, or `serial` if there is no
   * site; default 10. The first 256 such peers of a minute are kept apart; all further ones share a limit
   * of `maxRefusalsPerMinute`, which is not that of unauthenticated peers.
   */
  readonly maxSiteRefusalsPerMinute?: number | undefined;
}

/** What holds for options of `AuditLog` that are left out. */
export const AUDIT_LOG_DEFAULTS: Readonly<{
  maxRefusalsPerMinute: number;
  maxSiteRefusalsPerMinute: number;
}> = Object.freeze({ maxRefusalsPerMinute: 60, maxSiteRefusalsPerMinute: 10 });

export interface ResolvedLimits {
  readonly maxRefusalsPerMinute: number;
  readonly maxSiteRefusalsPerMinute: number;
}

/** @throws {ApiMisuseError} if a limit is not a whole number from 0. */
export function resolveRefusalLimits(limits: RefusalLimits): ResolvedLimits {
  const {
    maxRefusalsPerMinute = AUDIT_LOG_DEFAULTS.maxRefusalsPerMinute,
    maxSiteRefusalsPerMinute = AUDIT_LOG_DEFAULTS.maxSiteRefusalsPerMinute,
  } = limits;
  checkLimit('maxRefusalsPerMinute', maxRefusalsPerMinute);
  checkLimit('maxSiteRefusalsPerMinute', maxSiteRefusalsPerMinute);
  return { maxRefusalsPerMinute, maxSiteRefusalsPerMinute };
}

/** Refusals that got no line of their own. */
export interface Suppressed {
  readonly count: number;
  /** All of them, by code. */
  readonly codes: Readonly<Record<string, number>>;
  /** Those of peers that have proved who they are, by their site or serial number; absent if there are none. */
  readonly peers?: Readonly<Record<string, number>>;
}

/** Admits so many in a minute, which begins with its first refusal, and sums up the others when it is over. */
export class RefusalLimit {
  readonly #maxOfUnauthenticated: number;
  readonly #maxOfPeer: number;
  readonly #clock: Clock;
  readonly #sumUp: (suppressed: Suppressed) => void;
  /** How many got a line, by peer. */
  readonly #admitted = new Tally(MAX_PEERS);
  #admittedUnauthenticated = 0;
  readonly #codes = new Tally(MAX_CODES);
  readonly #peers = new Tally(MAX_PEERS);
  #cancel: (() => void) | undefined;
  #isStopped = false;

  constructor(limits: ResolvedLimits, clock: Clock, sumUp: (suppressed: Suppressed) => void) {
    this.#maxOfUnauthenticated = limits.maxRefusalsPerMinute;
    this.#maxOfPeer = limits.maxSiteRefusalsPerMinute;
    this.#clock = clock;
    this.#sumUp = sumUp;
  }

  /**
   * Whether the refusal gets a line; if not, it is counted.
   *
   * @param peer that was refused, if it has proved who it is
   */
  admit(code: string, peer: string | undefined): boolean {
    this.#startMinute();
    if (peer === undefined ? this.#admitUnauthenticated() : this.#admitPeer(peer)) return true;
    this.#codes.add(code, 1);
    if (peer !== undefined) this.#peers.add(peer, 1);
    return false;
  }

  /** Takes back what could not be written, for the end of the next minute. */
  restore({ codes, peers = {} }: Suppressed): void {
    for (const [code, count] of Object.entries(codes)) this.#codes.add(code, count);
    for (const [peer, count] of Object.entries(peers)) this.#peers.add(peer, count);
    this.#startMinute();
  }

  /** Ends the minute now. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#admittedUnauthenticated = 0;
    this.#admitted.takeAll();
    const codes = this.#codes.takeAll();
    const peers = this.#peers.takeAll();
    const count = Object.values(codes).reduce((sum, each) => sum + each, 0);
    if (count === 0) return;
    this.#sumUp({ count, codes, ...(Object.keys(peers).length > 0 && { peers }) });
  }

  /** Sets no timer any more. */
  stop(): void {
    this.#isStopped = true;
    this.#cancel?.();
  }

  #startMinute(): void {
    if (this.#isStopped) return;
    this.#cancel ??= this.#clock.after(MINUTE_MS, () => this.flush(), true);
  }

  #admitUnauthenticated(): boolean {
    if (this.#admittedUnauthenticated >= this.#maxOfUnauthenticated) return false;
    this.#admittedUnauthenticated++;
    return true;
  }

  #admitPeer(peer: string): boolean {
    const max = this.#admitted.isApart(peer) ? this.#maxOfPeer : this.#maxOfUnauthenticated;
    if (this.#admitted.of(peer) >= max) return false;
    this.#admitted.add(peer, 1);
    return true;
  }
}

/** Counts by name, in bounded memory: names beyond the first so many are counted together. */
class Tally {
  readonly #maxNames: number;
  #counts = new Map<string, number>();

  constructor(maxNames: number) {
    this.#maxNames = maxNames;
  }

  /** Whether the name is, or would be, counted under itself. */
  isApart(name: string): boolean {
    return this.#keyOf(name) !== OTHERS;
  }

  of(name: string): number {
    return this.#counts.get(this.#keyOf(name)) ?? 0;
  }

  add(name: string, count: number): void {
    const key = this.#keyOf(name);
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + count);
  }

  takeAll(): Record<string, number> {
    const counts = this.#counts;
    this.#counts = new Map();
    return Object.fromEntries(counts);
  }

  #keyOf(name: string): string {
    const key = name.slice(0, MAX_NAME_LENGTH);
    return this.#counts.has(key) || this.#counts.size < this.#maxNames ? key : OTHERS;
  }
}

function checkLimit(name: string, value: number): number {
  return checkWhole(name, value, 0, Number.MAX_SAFE_INTEGER);
}

const MINUTE_MS = 60_000;
/** Codes are this program's words; should an unauthenticated peer's be among them, they take no more room than this. */
const MAX_CODES = 32;
/** One line has room for them. */
const MAX_PEERS = 256;
const MAX_NAME_LENGTH = 64;
const OTHERS = 'others';
