/**
 * The names of a gateway's own site, as its clients ask for them by DNS.
 * @module
 */
import { type Snapshot, zoneDataOf } from '../control/index.ts';
import { DnsListener, SiteResolver, Zone } from '../dns/index.ts';
import type { HostPort } from '../host-port.ts';
import type { ResolvedDns } from './dns-options.ts';

export class SiteNames {
  readonly #resolver: SiteResolver;
  readonly #listener: DnsListener;

  private constructor(resolver: SiteResolver, listener: DnsListener) {
    this.#resolver = resolver;
    this.#listener = listener;
  }

  /**
   * Begins to answer; every name is foreign until `serve` is called.
   *
   * @throws {ConfigError} if a rule, a prefix or a limit is not usable.
   * @throws {EnvironmentError} if the port cannot be had.
   */
  static async open({ listen, ...options }: ResolvedDns): Promise<SiteNames> {
    const resolver = new SiteResolver(options);
    try {
      return new SiteNames(resolver, await DnsListener.listen({ resolver, ...listen }));
    } catch (error) {
      await resolver.close();
      throw error;
    }
  }

  /** Where it listens, with the port that was taken. */
  get address(): HostPort {
    const { host, port } = this.#listener;
    return { host, port };
  }

  get counters(): Readonly<Record<string, number>> {
    return { ...this.#resolver.counters, ...this.#listener.counters };
  }

  /** Answers by this snapshot from now on. */
  serve(snapshot: Snapshot): void {
    this.#resolver.setSources(snapshot.sources);
    this.#resolver.setZone(Zone.compile(zoneDataOf(snapshot, [this.#listener.host])));
  }

  async close(): Promise<void> {
    await this.#listener.close();
    await this.#resolver.close();
  }
}
