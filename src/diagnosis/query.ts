/**
 * What somebody asks about: a flow by names, addresses and ports, or the bytes of a packet. Texts such as
 * `site-b/10.0.0.9` and `rabbitmq:5672/tcp` are parsed here and nowhere else.
 * @module
 */
import { type AddressInput, IpAddress } from '../base/address.ts';
import { type NamedProtocol, PortRange } from '../base/port-range.ts';
import { ConfigError } from '../errors.ts';

/** A protocol of a flow; `ip` stands for one by its number. */
export type FlowProtocol = NamedProtocol | 'ip';

/** Where a flow begins. */
export interface FlowSource {
  readonly site: string;
  /** The real address of a host of the site. */
  readonly address?: AddressInput | undefined;
  /** A service at home in the site, instead of the address of its host. */
  readonly service?: string | undefined;
}

/** A flow by names, addresses and ports. */
export interface FlowQuery {
  /** Without `address` and `service`: any host of the site that may use the service. */
  readonly from: FlowSource;
  /** A service, a name as the site's DNS has it, or an address there. */
  readonly to: string;
  /** Default: that of the first port of the service. */
  readonly protocol?: FlowProtocol | undefined;
  /** 1 to 65535, for `ip` the number of the protocol; not used for `icmp`. Default: the first port of the service. */
  readonly port?: number | undefined;
  /** The port of the client, for `icmp` the identifier of the echo. Default 49152. */
  readonly sourcePort?: number | undefined;
}

/** The bytes of a packet. */
export interface PacketQuery {
  readonly from: Pick<FlowSource, 'site'>;
  /** An IP packet as it comes from the site, without a virtio-net header. */
  readonly packet: Uint8Array;
}

export type ExplainQuery = FlowQuery | PacketQuery;

/**
 * Parses the two ends of a flow: `site-b/10.0.0.9`, `site-b/[2001:db8::9]`, `site-b/console-b` (a service at home there)
 * or `site-b` alone; and `rabbitmq:5672/tcp`, `rabbitmq/icmp`, `bus.example.test:53/udp`, `[2001:db8::1]:443/tcp`,
 * `10.0.0.129:47/ip` (a protocol by its number) or `rabbitmq` alone, with its first port.
 *
 * @throws {ConfigError} if a text has another form; it names `from` or `to`.
 */
export function parseFlow(from: string, to: string): FlowQuery {
  return { from: parseFlowSource(from), ...parseDestination(to) };
}

/**
 * Parses where a flow begins, as `parseFlow` does.
 *
 * @throws {ConfigError} if the text has another form.
 */
export function parseFlowSource(text: string): FlowSource {
  const [, site, host] = /^([^/[\]\s]+)(?:\/(\S+))?$/.exec(text) ?? [];
  if (site === undefined) {
    const reason = `"${text}" is not a site and a host of it, such as site-b/10.0.0.9`;
    throw new ConfigError('from', reason);
  }
  if (host === undefined) return { site };
  const address = parseAddress(host.replace(/^\[(.*)\]$/, '$1'));
  return address === undefined ? { site, service: host } : { site, address };
}

/**
 * Checks the parts of a flow that a program gives.
 *
 * @throws {ConfigError} naming the part that is wrong.
 */
export function checkFlow(query: FlowQuery): void {
  const { from, to, protocol, port, sourcePort = 1 } = query;
  if (typeof to !== 'string' || to === '') {
    throw new ConfigError('to', 'expected a service, a name or an address');
  }
  if (from.address !== undefined && from.service !== undefined) {
    throw new ConfigError('from', 'expected an address or a service, not both');
  }
  if (protocol !== undefined && !PROTOCOLS.has(protocol)) {
    throw new ConfigError('protocol', `"${protocol}" is none of ${[...PROTOCOLS].join(', ')}`);
  }
  checkPort('sourcePort', sourcePort);
  if (port === undefined || protocol === 'icmp') return;
  if (protocol === 'ip') PortRange.parse(`ip/${port}`, 'port');
  else checkPort('port', port);
}

/** Returns the address that a text is; undefined if it is none. */
export function parseAddress(text: string): IpAddress | undefined {
  try {
    return IpAddress.parse(text);
  } catch {
    return undefined;
  }
}

function parseDestination(text: string): Omit<FlowQuery, 'from'> {
  const [, brackets, plain, digits, protocol] =
    /^(?:\[([0-9a-fA-F:.]+)\]|([^\s:/[\]]+))(?::(\d{1,5}))?(?:\/([a-z]+))?$/.exec(text) ?? [];
  const to = brackets ?? plain;
  if (to === undefined) {
    const reason = `"${text}" is not a service, name or address with a port, such as rabbitmq:5672/tcp; an IPv6 address is in brackets`;
    throw new ConfigError('to', reason);
  }
  const query = {
    to,
    ...(protocol !== undefined && { protocol: protocol as FlowProtocol }),
    ...(digits !== undefined && { port: Number(digits) }),
  };
  try {
    checkFlow({ from: { site: '' }, ...query });
  } catch (error) {
    throw new ConfigError('to', `"${text}": ${(error as Error).message}`, { cause: error });
  }
  return query;
}

function checkPort(path: string, port: number): void {
  if (Number.isInteger(port) && port >= 1 && port <= 65_535) return;
  throw new ConfigError(path, `expected a whole number from 1 to 65535, got ${port}`);
}

const PROTOCOLS: ReadonlySet<string> = new Set(['tcp', 'udp', 'udplite', 'sctp', 'icmp', 'ip']);
