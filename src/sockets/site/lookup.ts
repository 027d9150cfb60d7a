/**
 * `dns.lookup` out of the site's zone.
 * @module
 */
import {
  ADDRCONFIG,
  ALL,
  type LookupAddress,
  type LookupAllOptions,
  type LookupOneOptions,
  type LookupOptions,
  V4MAPPED,
} from 'node:dns';
import { isIP } from 'node:net';
import { inspect, promisify } from 'node:util';
import type { IpAddress } from '../../base/address.ts';
import {
  argumentError,
  checkCallback,
  checkName,
  familyOption,
  wrongType,
} from '../node/argument-checks.ts';
import { hasCode, lookupError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';

/** A function with the arguments and results of `dns.lookup`; `util.promisify` makes that of `dns/promises` of it. */
export interface PresenceLookup {
  (
    hostname: string,
    callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void
  ): void;
  (
    hostname: string,
    options: LookupOneOptions | number,
    callback: (error: NodeJS.ErrnoException | null, address: string, family: number) => void
  ): void;
  (
    hostname: string,
    options: LookupAllOptions,
    callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void
  ): void;
  (
    hostname: string,
    options: LookupOptions,
    callback: (
      error: NodeJS.ErrnoException | null,
      address: string | LookupAddress[],
      family: number
    ) => void
  ): void;
  __promisify__(hostname: string, options: LookupAllOptions): Promise<LookupAddress[]>;
  __promisify__(hostname: string, options?: LookupOneOptions | number): Promise<LookupAddress>;
  __promisify__(hostname: string, options: LookupOptions): Promise<LookupAddress | LookupAddress[]>;
}

type EitherCallback = (
  error: NodeJS.ErrnoException | null,
  address?: string | LookupAddress[],
  family?: number
) => void;

/**
 * Makes the lookup of a stack. It answers a name of the last snapshot at once. For another name it waits for the tunnel,
 * since the snapshot may be old. It fails with ENOTFOUND if the name is not in the zone then, and with ENETDOWN if the
 * tunnel does not come up. As Node, it finds the address null, or no address, for a name that is empty or null.
 */
export function lookupOf(host: SocketHost): PresenceLookup {
  const lookup = (
    hostname: string,
    options: LookupOptions | number | EitherCallback | null | undefined,
    callback?: EitherCallback
  ): void => {
    if (typeof options === 'function') {
      callback = options;
      options = undefined;
    }
    const name = checkName('hostname', hostname) ?? '';
    checkCallback('callback', callback);
    const { family, all } = checkedOptions(options);
    const answer = callback!;
    find(host, name, family).then(
      (found) => {
        const { address, family: one } = oneOf(found, family);
        process.nextTick(() => (all ? answer(null, found) : answer(null, address, one)));
      },
      (error) => process.nextTick(() => answer(error))
    );
  };
  const ofPromise = async (
    hostname: string,
    options?: LookupOptions | number
  ): Promise<LookupAddress | LookupAddress[]> => {
    const name = checkName('hostname', hostname) ?? '';
    const { family, all } = checkedOptions(options);
    const found = await find(host, name, family);
    return all ? found : oneOf(found, family);
  };
  Object.defineProperty(lookup, promisify.custom, { value: ofPromise });
  return lookup as PresenceLookup;
}

async function find(
  host: SocketHost,
  hostname: string,
  family: 0 | 4 | 6
): Promise<LookupAddress[]> {
  if (hostname === '') return [];
  const literal = isIP(hostname);
  if (literal !== 0) return [{ address: hostname, family: literal }];
  let addresses: readonly IpAddress[];
  try {
    addresses = known(host, hostname, family);
    if (addresses.length === 0) {
      await host.whenUp();
      addresses = host.resolve(hostname, family);
    }
  } catch (error) {
    if (hasCode(error, 'ENOTFOUND')) throw error;
    const cause = error instanceof Error ? (error.cause ?? error) : error;
    throw lookupError('ENETDOWN', hostname, cause);
  }
  return addresses.map((address) => ({ address: address.toString(), family: address.family }));
}

/** Returns the addresses of a name in the last snapshot. They are of no use if waiting for the tunnel does not help. */
function known(host: SocketHost, hostname: string, family: 0 | 4 | 6): readonly IpAddress[] {
  if (host.closedBy !== undefined) return [];
  try {
    return host.resolve(hostname, family);
  } catch {
    return [];
  }
}

/** Returns the first address; null, as Node, if there is none. */
function oneOf([first]: LookupAddress[], family: 0 | 4 | 6): LookupAddress {
  return first ?? { address: null as never, family: family || 4 };
}

/** @throws Node's errors. */
function checkedOptions(options: unknown): { family: 0 | 4 | 6; all: boolean } {
  if (options != null && typeof options !== 'number' && typeof options !== 'object') {
    throw wrongType('options', 'integer or object', options);
  }
  const given = typeof options === 'number' ? { family: options } : (options ?? {});
  const { family, all, hints } = given as Partial<Record<keyof LookupOptions, unknown>>;
  if (hints != null && typeof hints !== 'number') throw wrongType('options.hints', 'number', hints);
  if ((hints ?? 0) & ~(ADDRCONFIG | ALL | V4MAPPED)) throw wrongValue('hints', hints);
  if (![0, 4, 6, 'IPv4', 'IPv6', null, undefined].includes(family as number)) {
    throw wrongValue('options.family', family, ', expected 0, 4 or 6');
  }
  if (all != null && typeof all !== 'boolean') throw wrongType('options.all', 'boolean', all);
  return { family: familyOption(family), all: all === true };
}

function wrongValue(name: string, value: unknown, expected = ''): Error {
  const text = `The argument '${name}' is invalid${expected}. Received ${inspect(value)}`;
  return argumentError(TypeError, 'ERR_INVALID_ARG_VALUE', text);
}
