/**
 * `dns.lookup` out of the site's zone.
 * @module
 */
import type { LookupAddress, LookupAllOptions, LookupOneOptions, LookupOptions } from 'node:dns';
import { isIP } from 'node:net';
import { promisify } from 'node:util';
import type { IpAddress } from '../base/address.ts';
import { argumentError, checkCallback, checkName, familyOption } from './argument-checks.ts';
import type { SocketHost } from './host.ts';
import { hasCode, lookupError } from './system-error.ts';

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
  address: string | LookupAddress[],
  family: number
) => void;

/**
 * Makes the lookup of a stack. It answers a name of the last snapshot at once. For another name it waits for the tunnel,
 * since the snapshot may be old. It fails with ENOTFOUND if the name is not in the zone then, and with ENETDOWN if the
 * tunnel does not come up.
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
      (found) => process.nextTick(() => (all ? answer(null, found, 0) : answerOne(answer, found))),
      (error) => process.nextTick(() => answer(error, undefined as never, undefined as never))
    );
  };
  const ofPromise = async (
    hostname: string,
    options?: LookupOptions | number
  ): Promise<LookupAddress | LookupAddress[]> => {
    const name = checkName('hostname', hostname) ?? '';
    const { family, all } = checkedOptions(options);
    const found = await find(host, name, family);
    return all ? found : found[0]!;
  };
  Object.defineProperty(lookup, promisify.custom, { value: ofPromise });
  return lookup as PresenceLookup;
}

async function find(
  host: SocketHost,
  hostname: string,
  family: 0 | 4 | 6
): Promise<LookupAddress[]> {
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

function answerOne(answer: EitherCallback, [first]: LookupAddress[]): void {
  answer(null, first!.address, first!.family);
}

/** @throws Node's errors. */
function checkedOptions(options: LookupOptions | number | null | undefined): {
  family: 0 | 4 | 6;
  all: boolean;
} {
  const { family = 0, all = false } =
    typeof options === 'number' ? { family: options } : (options ?? {});
  if (![0, 4, 6, 'IPv4', 'IPv6'].includes(family)) {
    throw argumentError(
      TypeError,
      'ERR_INVALID_ARG_VALUE',
      `The property 'options.family' must be one of: 0, 4, 6. Received ${family}`
    );
  }
  return { family: familyOption(family), all };
}
