/**
 * The addresses of IPv6 for which the kernel answers neighbour solicitations on behalf of hosts behind the TUN. For
 * IPv4 the routes alone decide that (`proxy_arp`); IPv6 has nothing like it, so each address has an entry
 * ([ip-neighbour(8)](https://man7.org/linux/man-pages/man8/ip-neighbour.8.html)). The entries stay when the process is
 * killed.
 * @module
 */
import { IpAddress } from '../base/address.ts';
import type { IpPrefix } from '../base/prefix.ts';
import { ip, ipBatch } from './ip-command.ts';
import { ROUTE_PROTOCOL } from './tun-routes.ts';

/** Entries at one interface. */
export interface ProxyNeighbours {
  readonly device: string;
  readonly addresses: readonly IpAddress[];
}

/**
 * Adds entries and then removes others. It is no error if one is there already, or is not there.
 *
 * @throws {EnvironmentError} if `ip` is missing or refuses an entry; the others are changed then.
 */
export async function changeProxyNeighbours(
  added: readonly ProxyNeighbours[],
  removed: readonly ProxyNeighbours[]
): Promise<void> {
  const lines = [
    ...linesOf('replace', added, ` protocol ${ROUTE_PROTOCOL}`),
    ...linesOf('delete', removed, ''),
  ];
  if (lines.length > 0) await ipBatch(lines, NO_SUCH_ENTRY);
}

/**
 * Removes all entries within prefixes that `changeProxyNeighbours` has made at an interface, also those of a process
 * that was killed.
 *
 * @throws {EnvironmentError} if `ip` is missing or fails.
 */
export async function forgetProxyNeighbours(
  device: string,
  within: readonly IpPrefix[]
): Promise<void> {
  const prefixes = within.filter(({ family }) => family === 6);
  if (prefixes.length === 0) return;
  const found = await ip('-6', '-json', 'neighbour', 'show', 'proxy', 'dev', device);
  const entries = JSON.parse(found || '[]') as readonly { dst?: string; protocol?: string }[];
  const addresses = entries
    .filter(({ protocol }) => String(protocol) === ROUTE_PROTOCOL)
    .flatMap(({ dst }) => (dst === undefined ? [] : IpAddress.parse(dst)))
    .filter((address) => prefixes.some((prefix) => prefix.contains(address)));
  await changeProxyNeighbours([], [{ device, addresses }]);
}

function linesOf(
  verb: 'replace' | 'delete',
  entries: readonly ProxyNeighbours[],
  rest: string
): string[] {
  return entries.flatMap(({ device, addresses }) =>
    addresses.map((address) => `neighbour ${verb} proxy ${address} dev ${device}${rest}`)
  );
}

/** Matches what `ip -batch` prints about an entry that does not exist. */
const NO_SUCH_ENTRY = /No such file or directory|^Command failed -:\d+$/;
