/**
 * Which ports of which hosts expect a PROXY protocol header. A host has one listener at a port, however many services
 * lead to it: what one of them says holds for all, and two that contradict each other are refused.
 * @module
 */
import { type AddressInput, IpAddress } from '../../base/address.ts';
import { type PortInput, PortRange } from '../../base/port-range.ts';
import { ConfigError } from '../../errors.ts';
import { reached } from '../host/host-targets.ts';

/** The part of a `BackendService` that matters here. */
export interface HeaderService {
  readonly address: AddressInput;
  readonly ports: readonly PortInput[];
  readonly proxyProtocol?: boolean | undefined;
}

export class ServiceHeaders {
  /** The TCP ports of which it is said, by the text of the host's address. */
  readonly #hosts = new Map<string, HeaderPorts[]>();

  /**
   * @param hostOf returns where the service with this address is reached
   * @param path where the services stand, for the message
   * @throws {ApiMisuseError} if a text is not an address, {ConfigError} if it is not a port, or if two services contradict
   *   each other.
   */
  constructor(
    services: readonly HeaderService[],
    hostOf: (service: IpAddress) => IpAddress,
    path = 'services'
  ) {
    for (const [i, { address, ports, proxyProtocol }] of services.entries()) {
      if (proxyProtocol === undefined) continue;
      const host = reached(hostOf(IpAddress.from(address))).toString();
      const said = this.#hosts.get(host) ?? [];
      for (const port of ports) {
        const { protocol, first, last } = PortRange.from(port);
        if (protocol === 'tcp') said.push({ service: i, first, last, hasHeader: proxyProtocol });
      }
      this.#hosts.set(host, said);
    }
    for (const [host, said] of this.#hosts) checkAgreement(host, said, path);
  }

  /** Returns whether connections to this port begin with a header; undefined if no service says it. */
  of(host: IpAddress, port: number): boolean | undefined {
    const said = this.#hosts.get(reached(host).toString());
    return said?.find(({ first, last }) => first <= port && port <= last)?.hasHeader;
  }
}

/** What one service says of a range of ports. */
interface HeaderPorts {
  /** Its index in the list. */
  readonly service: number;
  readonly first: number;
  readonly last: number;
  readonly hasHeader: boolean;
}

/** @throws {ConfigError} if two ranges that overlap do not say the same. */
function checkAgreement(host: string, said: HeaderPorts[], path: string): void {
  said.sort((a, b) => a.first - b.first);
  // The range that reaches furthest, of those that have a header and of those that have none.
  const furthest = new Map<boolean, HeaderPorts>();
  for (const ports of said) {
    const { first, last, hasHeader } = ports;
    const other = furthest.get(!hasHeader);
    if (other !== undefined && first <= other.last) {
      const [service, earlier] = [ports.service, other.service].sort((a, b) => b - a);
      throw new ConfigError(
        `${path}[${service}].proxyProtocol`,
        `contradicts ${path}[${earlier}], which is reached at ${host} and tcp/${first} too: set the same for both`
      );
    }
    const before = furthest.get(hasHeader);
    if (before === undefined || before.last < last) furthest.set(hasHeader, ports);
  }
}
