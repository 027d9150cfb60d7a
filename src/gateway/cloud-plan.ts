/**
 * What a plan of the translator permits at the cloud: whose presence an address is, and which connections may be.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import { Endpoint } from '../base/endpoint.ts';
import type { PortRange } from '../base/port-range.ts';
import { CLOUD } from '../registry/index.ts';
import type { StackProtocol } from '../sockets/index.ts';
import type { Permit, Presence, TranslationPlan } from '../translator/index.ts';

/** A connection or flow between an address of the cloud and a presence there. */
export interface CloudFlow {
  readonly local: IpAddress;
  readonly localPort: number;
  readonly remote: IpAddress;
  readonly remotePort: number;
}

export class CloudPlan {
  /** The presences in the cloud, by the text of the address. */
  readonly #presences: Map<string, Presence>;
  /** The permits for services of the cloud and for clients there, by the key of the service. */
  readonly #permits = new Map<string, Permit[]>();
  /** The same permits, each as a text. */
  readonly #texts = new Set<string>();

  constructor({ presences, permits }: TranslationPlan) {
    const inCloud = presences.filter(({ realm }) => realm === CLOUD);
    this.#presences = new Map(inCloud.map((each) => [each.address.toString(), each]));
    for (const permit of permits) {
      const { realm, service, ports, clients } = permit;
      if (realm !== CLOUD && service.realm !== CLOUD) continue;
      const list = this.#permits.get(service.key);
      if (list === undefined) this.#permits.set(service.key, [permit]);
      else list.push(permit);
      this.#texts.add(`${realm} ${service.key} ${ports.join()} ${clients?.join()}`);
    }
  }

  /** A presence is added to the plan. */
  bind(presence: Presence): void {
    if (presence.realm === CLOUD) this.#presences.set(presence.address.toString(), presence);
  }

  /** Returns the site whose host this presence in the cloud stands for. */
  siteOf(remote: IpAddress): string | undefined {
    return this.#presences.get(remote.toString())?.of.realm;
  }

  /** Returns whether something that this plan has is missing in a later one. */
  hasMoreThan(later: CloudPlan): boolean {
    for (const [address, { of }] of this.#presences) {
      if (later.#presences.get(address)?.of.key !== of.key) return true;
    }
    for (const text of this.#texts) if (!later.#texts.has(text)) return true;
    return false;
  }

  /**
   * Returns why a connection that was possible in the plan `before` is not possible now, one sentence; undefined if it
   * is possible. Either end may be the service.
   */
  withdrawalOf(protocol: StackProtocol, flow: CloudFlow, before: CloudPlan): string | undefined {
    const { local, localPort, remote, remotePort } = flow;
    const now = this.#presences.get(remote.toString())?.of;
    const then = before.#presences.get(remote.toString())?.of;
    if (now === undefined || (then !== undefined && then.key !== now.key)) {
      const whose = then === undefined ? '' : ` for ${then.address} of ${then.realm}`;
      return `${remote} no longer stands${whose}`;
    }
    const own = new Endpoint(CLOUD, local);
    const isService = this.#allows(own, protocol, localPort, now);
    if (isService || this.#allows(now, protocol, remotePort, own)) return undefined;
    const port = `${protocol}/${before.#allows(own, protocol, localPort, now) ? localPort : remotePort}`;
    return `${port} is no longer exposed`;
  }

  #allows(service: Endpoint, protocol: StackProtocol, port: number, client: Endpoint): boolean {
    const permits = this.#permits.get(service.key) ?? [];
    return permits.some(
      ({ realm, ports, clients }) =>
        realm === client.realm &&
        ports.some((range) => contains(range, protocol, port)) &&
        (clients?.some((prefix) => prefix.contains(client.address)) ?? true)
    );
  }
}

function contains(range: PortRange, protocol: StackProtocol, port: number): boolean {
  return range.protocol === protocol && range.first <= port && port <= range.last;
}
