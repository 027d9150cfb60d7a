/**
 * The services that a backend may connect to, and the targets that it never connects to. It does not change: a backend
 * replaces it as a whole. Only the listeners of the stack come and go.
 * @module
 */
import { isIP } from 'node:net';
import { type AddressInput, IpAddress } from '../base/address.ts';
import { type PortInput, PortRange } from '../base/port-range.ts';
import type { HostEnds } from './backend-dial.ts';
import { HostTargets } from './host-targets.ts';
import type { StackProtocol } from './site-view.ts';

/** A service of a host that the gateway reaches. */
export interface BackendService {
  /** The real address. */
  readonly address: AddressInput;
  /** Ranges such as `tcp/5672`, `udp/8000-8100` or `icmp`; those of other protocols have no effect. */
  readonly ports: readonly PortInput[];
  /** Whether connections to it begin with a PROXY protocol header; default: the option `proxyProtocol`. */
  readonly proxyProtocol?: boolean | undefined;
}

/** An address and port of the gateway itself, for TCP and UDP. */
export interface BackendTarget {
  /** The unspecified address (`0.0.0.0`, `::`) stands for all addresses of this host. */
  readonly address: AddressInput;
  readonly port: number;
}

/** What a backend knows of one port of a service. */
export interface ServicePort {
  readonly proxyProtocol: boolean | undefined;
}

export class BackendServices {
  /** What it was made of: it is the same for those that allow the same. */
  readonly text: string;
  /** The ranges of each address, by its text. */
  readonly #services = new Map<string, Entry[]>();
  readonly #refused = new HostTargets();
  /** What else is refused. */
  readonly #listeners: HostTargets;
  /** Where services are that are not at their own address, by the text of that. */
  readonly #hosts: ReadonlyMap<string, IpAddress>;

  /**
   * @param listeners further refused targets, as they are when a client comes
   * @throws {ApiMisuseError} if a text is not an address, {ConfigError} if it is not a port.
   */
  constructor(
    services: readonly BackendService[],
    refused: readonly BackendTarget[],
    hosts: ReadonlyMap<string, IpAddress>,
    listeners: HostTargets
  ) {
    this.#hosts = hosts;
    this.#listeners = listeners;
    for (const { address, ports, proxyProtocol } of services) {
      const key = IpAddress.from(address).toString();
      const entries = this.#services.get(key) ?? [];
      for (const port of ports) entries.push({ range: PortRange.from(port), proxyProtocol });
      this.#services.set(key, entries);
    }
    for (const { address, port } of refused) this.#refused.add(IpAddress.from(address), port);
    const entries = [...this.#services].map(([address, list]) => `${address} ${list.map(textOf)}`);
    const targets = refused.map(({ address, port }) => `${address} ${port}`);
    this.text = `${entries.join('; ')} | ${targets.join('; ')}`;
  }

  /** Returns whether a service has this port, and the gateway itself does not. */
  allows(protocol: StackProtocol, address: IpAddress, port: number): boolean {
    return this.find(protocol, address, port) !== undefined && !this.isRefused(address, port);
  }

  /**
   * Returns what is known of the port; undefined if no service has it. If several have it, one with a header comes
   * first, then one without its own setting: a service that expects the header must not get the client's bytes in its
   * place.
   */
  find(protocol: StackProtocol, address: IpAddress, port: number): ServicePort | undefined {
    let found: Entry | undefined;
    for (const entry of this.#services.get(address.toString()) ?? []) {
      const { range } = entry;
      if (range.protocol !== protocol || port < range.first || port > range.last) continue;
      if (entry.proxyProtocol === true) return entry;
      if (found === undefined || entry.proxyProtocol === undefined) found = entry;
    }
    return found;
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

function textOf({ range, proxyProtocol }: Entry): string {
  return `${range} ${proxyProtocol}`;
}

interface Entry extends ServicePort {
  readonly range: PortRange;
}
