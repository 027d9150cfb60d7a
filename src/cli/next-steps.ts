/**
 * What a newcomer does next, as commands to copy.
 * @module
 */
import { relative, resolve } from 'node:path';
import type { Io } from './io.ts';

/** Returns how this program was called, for commands that the user is to type. */
export function callOf({ env }: Pick<Io, 'env'>): string {
  // npx sets it, and does not put the program on the path.
  return env.npm_command === 'exec' ? 'npx virtual-presence' : 'virtual-presence';
}

/** Returns a path as the user would type it here. */
export function shortPath(path: string): string {
  // A service runs in the root directory, and its log is read elsewhere.
  if (process.cwd() === '/') return resolve(path);
  const short = relative(process.cwd(), path);
  if (short === '') return '.';
  return short.startsWith('..') ? path : short;
}

/**
 * Returns the commands for a cloud gateway without sites: a site, its token, and a service for it.
 *
 * @param call what `callOf` has returned
 * @param adminSocket the path of the gateway's socket
 */
export function firstSiteCommands(call: string, adminSocket: string): string[] {
  const at = `--socket ${shortPath(adminSocket)}`;
  return [
    `${call} site set site-a ${at} --sources 192.168.1.0/24 --pools ${FIRST_POOL} --zone presence.internal`,
    `${call} token create site-a ${at} --out token`,
    `${call} service set web ${at} --site cloud --address ADDRESS --ports tcp/80`,
    `${call} expose web site-a ${at}`,
  ];
}

/**
 * Returns what the hosts of a LAN need to reach a pool through the TUN of a gateway.
 *
 * @param pool the pool, or words for it
 * @param address the address of the gateway's machine in the LAN
 */
export function routeSentence(pool: string, address: string): string {
  return (
    `Hosts of its LAN need a route: ip route add ${pool} via ${address}. ` +
    'If the pool is a part of their own network, name the interface in device.proxyArp instead.'
  );
}

/** Returns the commands for the machine of the new site, where the token is in the file `token`. */
export function firstEdgeCommands(call: string): string[] {
  return [`${call} init edge --token-file token`, `${call} edge edge.yaml`];
}

/** The pool of the first site, as an example. */
export const FIRST_POOL = '100.64.0.0/24';
