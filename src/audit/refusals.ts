/**
 * Limits the lines for refused peers, because anybody who reaches the port can cause any number of refused handshakes.
 * All unauthenticated peers share one limit. Each authenticated peer has its own limit, so that unauthenticated peers
 * cannot keep it out of the log.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { checkWhole } from '../base/option-check.ts';

export interface RefusalLimits {
  /**
   * The most lines per minute for refused handshakes and enrolments of all unauthenticated peers together. The other
   * refusals are summarised in one line at the end of the minute. Default 60.
   */
  readonly maxRefusalsPerMinute?: number | undefined;
  /**
   * The same for each authenticated peer, identified by the event's `site`, or by `serial` if there is no site; default
   * 10. It applies to the first 256 such peers in a minute. All others share another limit of `maxRefusalsPerMinute`,
   * which is separate from that of unauthenticated peers.
   */
  readonly maxSiteRefusalsPerMinute?: number | undefined;
}

/** The defaults of `RefusalLimits`. */
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

/** Refusals without their own line. */
export interface Suppressed {
  readonly count: number;
  /** The number of all of them, by code. */
  readonly codes: Readonly<Record<string, number>>;
  /** The number of those of authenticated peers, by site or serial number; absent if there are none. */
  readonly peers?: Readonly<Record<string, number>>;
}

/** Admits a limited number of refusals a minute, which its first refusal starts, and summarises the others at its end. */
export class RefusalLimit {
  readonly #maxOfUnauthenticated: number;
  readonly #maxOfPeer: number;
  readonly #clock: Clock;
  readonly #summarise: (suppressed: Suppressed) => void;
  /** How many refusals got a line, by peer. */
  readonly #admitted = new Tally(MAX_PEERS);
  #admittedUnauthenticated = 0;
  readonly #codes = new Tally(MAX_CODES);
  readonly #peers = new Tally(MAX_PEERS);
  #cancel: (() => void) | undefined;
  #isStopped = false;

  constructor(limits: ResolvedLimits, clock: Clock, summarise: (suppressed: Suppressed) => void) {
    this.#maxOfUnauthenticated = limits.maxRefusalsPerMinute;
    this.#maxOfPeer = limits.maxSiteRefusalsPerMinute;
    this.#clock = clock;
    this.#summarise = summarise;
  }

  /**
   * Returns whether the refusal gets a line; if not, it is counted.
   *
   * @param peer the site or serial number of the refused peer, if it is authenticated
   */
  admit(code: string, peer: string | undefined): boolean {
    this.#startMinute();
    if (peer === undefined ? this.#admitUnauthenticated() : this.#admitPeer(peer)) return true;
    this.#codes.add(code, 1);
    if (peer !== undefined) this.#peers.add(peer, 1);
    return false;
  }

  /** Takes back a summary that could not be written, for the end of the next minute. */
  restore({ codes, peers = {} }: Suppressed): void {
    for (const [code, count] of Object.entries(codes)) this.#codes.add(code, count);
    for (const [peer, count] of Object.entries(peers)) this.#peers.add(peer, count);
    this.#startMinute();
  }

  /** Ends the minute now and passes the summary on, if there is anything in it. */
  flush(): void {
    this.#cancel?.();
    this.#cancel = undefined;
    this.#admittedUnauthenticated = 0;
    this.#admitted.takeAll();
    const codes = this.#codes.takeAll();
    const peers = this.#peers.takeAll();
    const count = Object.values(codes).reduce((sum, each) => sum + each, 0);
    if (count === 0) return;
    this.#summarise({ count, codes, ...(Object.keys(peers).length > 0 && { peers }) });
  }

  /** Stops the timer and sets no further one. */
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
    const max = this.#admitted.hasOwnCount(peer) ? this.#maxOfPeer : this.#maxOfUnauthenticated;
    if (this.#admitted.of(peer) >= max) return false;
    this.#admitted.add(peer, 1);
    return true;
  }
}

/** Counts by name in bounded memory: names after the first `maxNames` are counted together. */
class Tally {
  readonly #maxNames: number;
  #counts = new Map<string, number>();

  constructor(maxNames: number) {
    this.#maxNames = maxNames;
  }

  /** Whether the name has, or would get, its own count. */
  hasOwnCount(name: string): boolean {
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
/** All codes should be this program's own. The bound holds even if those of unauthenticated peers are among them. */
const MAX_CODES = 32;
/** This many names fit into one line. */
const MAX_PEERS = 256;
const MAX_NAME_LENGTH = 64;
const OTHERS = 'others';
