/**
 * Limits the rate of answers by UDP to one network. The source address of a datagram may be forged, and
 * the owner of that address then gets answers that it has not asked for. This limit makes them few, and
 * the answers beyond it are no longer than the queries. It works as response rate limiting does in BIND,
 * Knot DNS and NSD:
 *
 * 1. An answer takes a token of the client's network, a /24 of IPv4 or a /56 of IPv6. Errors have tokens
 *    of their own, because anybody can cause them.
 * 2. If there is no token, every `slip`-th answer has only the question and TC. A real client asks again
 *    by TCP, which has no limit here because the source of a connection cannot be forged.
 * 3. The other answers without a token are dropped. Errors without a token are all dropped, as in BIND.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { RateLimit } from '../base/rate-limit.ts';
import type { Client } from './client-table.ts';
import { integerWithin } from './limits.ts';

export interface ResponseRateOptions {
  /**
   * Answers per second by UDP to one /24 of IPv4 or /56 of IPv6, on average; a burst may have as many as
   * one second brings. Default 1000.
   */
  readonly responsesPerSecond?: number | undefined;
  /** Errors per second: REFUSED to clients that may not ask, FORMERR and NOTIMP. Default 50. */
  readonly errorsPerSecond?: number | undefined;
  /**
   * The number of answers beyond the rate of which one is sent truncated; the others are dropped. Default 1, as in
   * Knot DNS: all of them are sent truncated, so that no real client has to wait. With 0, all are dropped.
   */
  readonly slip?: number | undefined;
  /**
   * The clients without a limit: prefixes, addresses, `sources` and `loopback` as in `allow`. Default
   * `['loopback']`.
   */
  readonly exempt?: readonly string[] | undefined;
}

/** The default of each option. */
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

  /** Decides what happens to an answer by UDP to `client`. */
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

export const MAX_PER_SECOND = 1_000_000;
/** The same limit as in BIND. */
export const MAX_SLIP = 10;
/** The number of networks that each of the two rates remembers, about 2 MiB. BIND's `max-table-size` is 20,000. */
const MAX_BLOCKS = 16_384;
