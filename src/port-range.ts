/**
 * What a service offers, as text: `tcp/5672`, `udp/8000-8100` or `icmp`.
 * @module
 */
import { ConfigError } from './errors.ts';

/** A protocol and an inclusive range of ports; `icmp` (echo) has the range 0 to 0. */
export interface PortRange {
  readonly protocol: 'tcp' | 'udp' | 'icmp';
  readonly first: number;
  readonly last: number;
}

/**
 * Parses `tcp/5672`, `udp/8000-8100` or `icmp`.
 *
 * @param path where the text stands, for the message
 * @throws {ConfigError} if the text is none of these.
 */
export function parsePortRange(text: string, path = ''): PortRange {
  if (text === 'icmp') return { protocol: 'icmp', first: 0, last: 0 };
  const match = /^(tcp|udp)\/(\d{1,5})(?:-(\d{1,5}))?$/.exec(text);
  const first = Number(match?.[2]);
  const last = Number(match?.[3] ?? match?.[2]);
  if (match === null || first < 1 || last > 65_535 || first > last) {
    throw new ConfigError(path, `"${text}" is not a port such as tcp/5672, udp/8000-8100 or icmp`);
  }
  return { protocol: match[1] as 'tcp' | 'udp', first, last };
}
