/**
 * The services that a backend may connect to, and the targets that it never connects to. It does not change: a backend
 * replaces it as a whole. Only the listeners of the stack come and go.
 * @module
 */
import { isIP } from 'node:net';
import { type AddressInput, IpAddress } from '../../base/address.ts';
import { type PortInput, PortRange } from '../../base/port-range.ts';
import { HostTargets } from '../host/host-targets.ts';
import type { StackProtocol } from '../site/site-view.ts';
import type { HostEnds } from './backend-dial.ts';
import { ServiceHeaders } from './service-headers.ts';

/** A service of a host that the gateway reaches. */
export interface BackendService {
  /** The real address. */
  readonly address: AddressInput;
  /** Ranges such as `tcp/5672`, `udp/8000-8100` or `icmp`; those of other protocols have no effect. */
  readonly ports: readonly PortInput[];
  /**
   * Whether connections to it begin with a PROXY protocol header. It holds for all services that are reached at the same
   * host and port, and two of them must not contradict each other. Default: the option `proxyProtocol`.
   */
  readonly proxyProtocol?: boolean | undefined;
}

/** An address and port of the gateway itself, for TCP and UDP. */
export interface BackendTarget {
  /** The unspecified address (`0.0.0.0`, `::`) stands for all addresses of this host. */
  readonly address: AddressInput;
  readonly port: number;
}

export class BackendServices {
  /** What it was made of: it is the same for those that allow the same. */
  readonly text: string;
  /** The ranges of each address, by its text. */
  readonly #services = new Map<string, PortRange[]>();
  readonly #headers: ServiceHeaders;
  readonly #refused = new HostTargets();
  /** What else is refused. */
  readonly #listeners: HostTargets;
  /** Where services are that are not at their own address, by the text of that. */
  readonly #hosts: ReadonlyMap<string, IpAddress>;

  /**
   * @param listeners further refused targets, as they are when a client comes
   * @throws {ApiMisuseError} if a text is not an address, {ConfigError} if it is not a port, or if two services contradict
   *   each other about the header of one port.
   */
  constructor(
    services: readonly BackendService[],
    refused: readonly BackendTarget[],
    hosts: ReadonlyMap<string, IpAddress>,
    listeners: HostTargets
  ) {
    this.#hosts = hosts;
    this.#listeners = listeners;
    for (const { address, ports } of services) {
      const key = IpAddress.from(address).toString();
      const ranges = this.#services.get(key) ?? [];
      for (const port of ports) ranges.push(PortRange.from(port));
      this.#services.set(key, ranges);
    }
    this.#headers = new ServiceHeaders(services, (service) => this.hostOf(service));
    for (const { address, port } of refused) this.#refused.add(IpAddress.from(address), port);
    const entries = services.map(textOf);
    const targets = refused.map(({ address, port }) => `${address} ${port}`);
    this.text = `${entries.join('; ')} | ${targets.join('; ')}`;
  }

  /** Returns whether a service has this port, and the gateway itself does not. */
  allows(protocol: StackProtocol, address: IpAddress, port: number): boolean {
    return this.has(protocol, address, port) && !this.isRefused(address, port);
  }

  /** Returns whether a service has this port. */
  has(protocol: StackProtocol, address: IpAddress, port: number): boolean {
    const ranges = this.#services.get(address.toString()) ?? [];
    return ranges.some(
      (range) => range.protocol === protocol && range.first <= port && port <= range.last
    );
  }

  /** Returns whether connections to this begin with a PROXY protocol header; undefined if no service says it. */
  hasHeader(service: IpAddress, port: number): boolean | undefined {
    return this.#headers.of(this.hostOf(service), port);
  }

  /** Returns where the service with this address is reached. */
  hostOf(service: IpAddress): IpAddress {
    return this.#hosts.size === 0 ? service : (this.#hosts.get(service.toString()) ?? service);
  }

  /** Returns whether the gateway itself listens where the service is reached. */
  isRefused(service: IpAddress, port: number): boolean {
    const host = this.hostOf(service);
    return this.#refused.has(host, port) || this.#listeners.has(host, port);
  }

  /**
   * Returns whether a socket of the host has reached the gateway itself. Both ends have the same address then, which is
   * one of this host, also if the system does not list it.
   */
  isGateway({ localAddress, remoteAddress, remotePort = 0 }: HostEnds): boolean {
    if (remoteAddress === undefined || localAddress !== remoteAddress) return false;
    // A zone index says nothing about the port.
    const [text] = remoteAddress.split('%');
    if (isIP(text!) === 0) return false;
    const address = IpAddress.parse(text!);
    return this.#refused.hasOwn(address, remotePort) || this.#listeners.hasOwn(address, remotePort);
  }
}

function textOf({ address, ports, proxyProtocol }: BackendService): string {
  return `${IpAddress.from(address)} ${ports.join()} ${proxyProtocol}`;
}
