/**
 * Opens and ends further connections beside the primary one, on the side that dialled.
 * @module
 */
import type { SecureContext } from 'node:tls';
import { backoffDelayMs } from '../base/backoff.ts';
import type { ConnectionSet } from './connection-set.ts';
import { DialAttempt } from './dial-attempt.ts';
import { retryDelayMs } from './dial-wait.ts';
import type { LastEpoch } from './last-epoch.ts';
import type { ResolvedDialOptions } from './options.ts';

/**
 * Says how many connections a tunnel needs: one while there is little traffic, so that an idle site costs one
 * connection; one for each busy flow, up to a limit, when there is much. Then each flow has its own share of the network,
 * and a lost segment holds up one of them only. Short connections do not count, however many there are: the packets of
 * one exchange would come over several sockets, each with system calls of its own.
 */
export class ConnectionScaler {
  readonly #max: number;
  #wanted = 1;
  #neededMs = 0;
  #bytes = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /**
   * Called every `CONNECTION_CHECK_MS`.
   *
   * @param bytes sent and received, cumulative
   * @param flows that are busy
   */
  update(nowMs: number, bytes: number, flows: number): number {
    const isBusy = bytes - this.#bytes >= BUSY_BYTES;
    this.#bytes = bytes;
    const needed = isBusy ? Math.min(Math.max(flows, 1), this.#max) : 1;
    if (needed >= this.#wanted || nowMs - this.#neededMs >= KEEP_MS) {
      this.#wanted = needed;
      this.#neededMs = nowMs;
    }
    return this.#wanted;
  }
}

/** Dials connections of a tunnel that is up, as many as the scaler says. */
export class FurtherConnections {
  /** Certificate and key for the connections that the scaler wants. */
  context: SecureContext;
  /** While the tunnel is renewed, the connections are not scaled: some of them are about to go. */
  isRenewing = false;
  readonly #set: ConnectionSet;
  readonly #options: ResolvedDialOptions;
  readonly #lastEpoch: LastEpoch;
  readonly #attempts = new Set<DialAttempt>();
  #tunnelId = '';
  #cancelTimer: () => void = () => {};
  #onIdle: () => void = () => {};
  /** Failures in a row, and when the next attempt may be made. */
  #failures = 0;
  #nextMs = 0;

  constructor(set: ConnectionSet, options: ResolvedDialOptions, lastEpoch: LastEpoch) {
    this.#set = set;
    this.#options = options;
    this.#lastEpoch = lastEpoch;
    this.context = options.context;
  }

  /** The primary connection of the tunnel is up. There may be `max` connections that carry packets. */
  start(tunnelId: string, max: number): void {
    this.#tunnelId = tunnelId;
    if (max > 1) this.#watch(new ConnectionScaler(max));
  }

  /** Cancels the attempts that are under way, and makes no more until `start`. */
  stop(): void {
    this.#cancelTimer();
    for (const attempt of this.#attempts) attempt.cancel();
    this.#attempts.clear();
  }

  /** Resolves when no attempt is under way; never if `stop` is called before. */
  whenIdle(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#attempts.size === 0) resolve();
      else this.#onIdle = resolve;
    });
  }

  /**
   * Dials a connection to the address of the primary one, because the name of the endpoint may stand for another one by
   * now. A proxy is asked for the endpoint again, because only the proxy knows the address. If that leads to another
   * gateway, it refuses the connection (`no-tunnel`), and the tunnel keeps the connections that it has.
   *
   * @param number 0 for a connection that is to be the primary one
   */
  dial(number: number, context: SecureContext): DialAttempt {
    const { remoteAddress: host, remotePort: port, proxiedEndpoint } = this.#set.info!;
    const attempt = new DialAttempt(this.#options, {
      endpoints: [proxiedEndpoint ?? { host, port }],
      context,
      lastEpoch: this.#lastEpoch,
      tunnel: this.#tunnelId,
      ...(number === 0 ? { lane: 0, renews: true } : { lane: number }),
    });
    const onDone = (): void => {
      this.#attempts.delete(attempt);
      if (this.#attempts.size === 0) this.#onIdle();
    };
    attempt.once('up', onDone);
    attempt.once('failed', onDone);
    this.#attempts.add(attempt);
    return attempt;
  }

  #watch(scaler: ConnectionScaler): void {
    const { clock } = this.#options;
    this.#cancelTimer = clock.after(CONNECTION_CHECK_MS, () => {
      this.#watch(scaler);
      if (!this.isRenewing) this.#scale(scaler, clock.monotonicMs());
    });
  }

  #scale(scaler: ConnectionScaler, nowMs: number): void {
    const { counters, sender } = this.#set;
    const bytes = counters.sentBytes + counters.receivedBytes;
    const wanted = scaler.update(nowMs, bytes, sender.busyFlows(nowMs));
    if (wanted < sender.connections.length) this.#set.shrink(wanted);
    // A listener that learned of it may have ended the tunnel.
    if (this.#set.info === undefined) return;
    const { length } = sender.connections;
    const missing = wanted - length - this.#attempts.size;
    if (nowMs < this.#nextMs) return;
    for (let i = 0; i < missing; i++) this.#open(length + i);
  }

  #open(number: number): void {
    const attempt = this.dial(number, this.context);
    attempt.once('up', ({ connection, info }) => {
      this.#failures = 0;
      this.#set.add(connection, info);
    });
    attempt.once('failed', (cause) => {
      const { backoff, random, clock } = this.#options;
      const delayMs =
        retryDelayMs(cause, backoff, random) ?? backoffDelayMs(this.#failures++, backoff, random);
      this.#nextMs = clock.monotonicMs() + delayMs;
    });
  }
}

export const CONNECTION_CHECK_MS = 250;
/** Bytes in one check interval from which a tunnel is busy: 4 Mbit/s. */
const BUSY_BYTES = 128 * 1024;
/** How long connections are kept that are not needed, because opening one takes several round trips. */
const KEEP_MS = 10_000;
