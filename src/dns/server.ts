/**
 * `DnsServer`: the DNS service of a gateway, a `SiteResolver` with a `DnsListener`.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { checkObject } from '../base/option-check.ts';
import type { PrefixInput } from '../base/prefix.ts';
import { parseSchema } from '../base/schema.ts';
import type { HistogramSample } from '../observe/index.ts';
import { DnsListener, type DnsListenerCounters } from './listener.ts';
import { type DnsOptions, DnsOptionsSchema } from './options.ts';
import { SiteResolver, type SiteResolverCounters } from './resolver.ts';
import type { Zone } from './zone.ts';

export interface DnsServerOptions extends DnsOptions {
  /** Measures the rate of answers; default the clock of the system. */
  readonly clock?: Clock | undefined;
}

/** Answers from `listen` to `close`; until `setZone`, every name is foreign. */
export class DnsServer implements AsyncDisposable {
  readonly #resolver: SiteResolver;
  readonly #listener: DnsListener;
  #closing: Promise<void> | undefined;

  private constructor(resolver: SiteResolver, listener: DnsListener) {
    this.#resolver = resolver;
    this.#listener = listener;
  }

  /**
   * Begins to answer on both transports.
   *
   * @throws {ApiMisuseError} if `options` is not an object, or `clock` is not a clock.
   * @throws {ConfigError} with the path of the option that is wrong; nothing was opened then.
   * @throws {EnvironmentError} if the port is busy or not permitted, or no interface has the address.
   */
  static async listen(options: DnsServerOptions): Promise<DnsServer> {
    const { clock, ...dns } = checkObject('options', options);
    const { listen, ...rules } = parseSchema(DnsOptionsSchema, dns);
    const resolver = new SiteResolver({ ...rules, ...(clock === undefined ? {} : { clock }) });
    try {
      return new DnsServer(resolver, await DnsListener.listen({ resolver, listen }));
    } catch (error) {
      await resolver.close();
      throw error;
    }
  }

  /** The address and the port that it listens at. */
  get address(): HostPort {
    return this.#listener.address;
  }

  /** The counters of the resolver and of the listener, cumulative. */
  get counters(): Readonly<SiteResolverCounters & DnsListenerCounters> {
    return { ...this.#resolver.counters, ...this.#listener.counters };
  }

  /** The answers by response code, see `SiteResolver.responses`. */
  get responses(): Readonly<Record<string, number>> {
    return this.#resolver.responses;
  }

  /** How long forwarded queries took, see `SiteResolver.forwardTimes`. */
  get forwardTimes(): HistogramSample {
    return this.#resolver.forwardTimes;
  }

  /** Replaces the zone, as `SiteResolver.setZone` does. */
  setZone(zone: Zone): void {
    this.#resolver.setZone(zone);
  }

  /** Stops answering from the zone, as `SiteResolver.expireZone` does. */
  expireZone(): void {
    this.#resolver.expireZone();
  }

  /**
   * Replaces the site's prefixes, as `SiteResolver.setSources` does.
   *
   * @throws {ConfigError} at `sources[i]` if an entry is not a prefix.
   */
  setSources(prefixes: readonly PrefixInput[]): void {
    this.#resolver.setSources(prefixes);
  }

  /** Closes every connection and every exchange with an upstream; resolves when the port is free again. */
  close(): Promise<void> {
    this.#closing ??= this.#listener.close().then(() => this.#resolver.close());
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
