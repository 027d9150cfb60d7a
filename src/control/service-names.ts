/**
 * The names of an exposed service at a site: what its exposure asks for, as a snapshot carries it.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { PortRange } from '../base/port-range.ts';
import { exposureName, type Site } from '../registry/index.ts';
import type { SnapshotBinding, SnapshotHost } from './snapshot.ts';

/** What an exposure says of its names. */
export interface ExposedNames {
  readonly service: string;
  readonly site: string;
  readonly dnsName?: string | undefined;
  /** Further names within the site's zone. */
  readonly aliases?: readonly string[] | undefined;
  readonly wildcard?: boolean | undefined;
  readonly https?: readonly SnapshotBinding[] | undefined;
  readonly svcb?: readonly SnapshotBinding[] | undefined;
}

/**
 * Returns the host of a service whose presence in the site is `address`. What the exposure does not ask for is absent.
 *
 * @param former addresses that the presence had before; default none
 */
export function serviceHost(
  exposure: ExposedNames,
  { ports }: { readonly ports: readonly PortRange[] },
  address: IpAddress,
  site: Pick<Site, 'zone'>,
  former: readonly IpAddress[] = []
): SnapshotHost {
  const { aliases = [], wildcard, https = [], svcb = [] } = exposure;
  return {
    name: exposureName(exposure, site),
    addresses: [address],
    ports,
    ...(former.length > 0 && { former }),
    ...(aliases.length > 0 && {
      aliases: aliases.map((alias) => exposureName({ ...exposure, dnsName: alias }, site)),
    }),
    ...(wildcard === true && { wildcard }),
    ...(https.length > 0 && { https }),
    ...(svcb.length > 0 && { svcb }),
  };
}
