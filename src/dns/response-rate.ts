/**
 * How many answers may go by UDP to one network. The source of a datagram may be forged, and its owner
 * then gets answers it has not asked for; with this limit it gets few, and those beyond are no longer
 * than the queries. It works as response rate limiting does in BIND, Knot DNS and NSD:
 *
 * 1. An answer takes a token of its network, a /24 of IPv4 or a /56 of IPv6. Errors have tokens of
 *    their own, since anybody may cause them.
 * 2. Without a token, every `slip`-th answer is cut down to its question, with TC set. Who has really
 *    asked asks again by TCP, which has no limit here: its sources cannot be forged.
 * 3. The other answers are dropped, and so are errors without a token, as in BIND.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { RateLimit } from '../base/rate-limit.ts';
import type { Client } from './client-table.ts';
import { integerWithin } from './limits.ts';

export interface ResponseRateOptions {
  /**
   * Answers a second by UDP to one /24 of IPv4 or /56 of IPv6, averaged; a second's worth may come at
   * once. Default 1000.
   */
  readonly responsesPerSecond?: number | undefined;
  /**
   * The same for errors: REFUSED to those who may not ask, FORMERR, NOTIMP. Default 50.
   */
  readonly errorsPerSecond?: number | undefined;
  /**
   * Every how many answers beyond the rate one is sent truncated instead of none; default 1 (as in Knot
   * DNS), which is all of them, so that no honest client has to wait. With 0 none is.
   */
  readonly slip?: number | undefined;
  /**
   * Whose answers have no rate: prefixes, addresses, `sources` and `loopback` as in `allow`. Default
   * `loopback`.
   */
  readonly exempt?: readonly string[] | undefined;
}

/** What is used where an option is absent. */
export const RESPONSE_RATE_DEFAULTS: Readonly<{
  responsesPerSecond: number;
  errorsPerSecond: number;
  slip: number;
  exempt: readonly string[];
}> = Object.freeze({
  responsesPerSecond: 1000,
  errorsPerSecond: 50,
  slip: 1,
  exempt: Object.freeze(['loopback']),
});

export type RateVerdict = 'answer' | 'truncate' | 'drop';

export class ResponseRate {
  readonly #responses: RateLimit;
  readonly #errors: RateLimit;
  readonly #slip: number;
  readonly #clock: Clock;
  #limited = 0;

  /** @throws {ConfigError} if a limit is out of its range. */
  constructor(options: ResponseRateOptions, clock: Clock) {
    const {
      responsesPerSecond = RESPONSE_RATE_DEFAULTS.responsesPerSecond,
      errorsPerSecond = RESPONSE_RATE_DEFAULTS.errorsPerSecond,
      slip = RESPONSE_RATE_DEFAULTS.slip,
    } = options;
    this.#responses = perBlock('responsesPerSecond', responsesPerSecond);
    this.#errors = perBlock('errorsPerSecond', errorsPerSecond);
    this.#slip = integerWithin('rateLimit.slip', slip, 0, MAX_SLIP);
    this.#clock = clock;
  }

  /** Says what may become of an answer by UDP to `client`. */
  judge(client: Client, isError: boolean): RateVerdict {
    if (client.isExempt) return 'answer';
    const rate = isError ? this.#errors : this.#responses;
    if (rate.take(client.block, this.#clock.monotonicMs())) return 'answer';
    if (isError || this.#slip === 0) return 'drop';
    this.#limited = (this.#limited + 1) % this.#slip;
    return this.#limited === 0 ? 'truncate' : 'drop';
  }
}

function perBlock(name: string, perSecond: number): RateLimit {
  integerWithin(`rateLimit.${name}`, perSecond, 1, MAX_PER_SECOND);
  return new RateLimit(perSecond, perSecond, MAX_BLOCKS);
}

const MAX_PER_SECOND = 1_000_000;
/** As in BIND. */
const MAX_SLIP = 10;
/** Networks that each of the two rates remembers: some 2 MiB. BIND's `max-table-size` is 20,000. */
const MAX_BLOCKS = 16_384;
