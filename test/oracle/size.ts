/**
 * Check 8 of the translator's contract: whether a packet fits the egress realm.
 * @module
 */
import type { IpVersion } from './headers.ts';
import type { Packet } from './parse.ts';

/** The packet as it would leave. */
export interface Leaving {
  readonly version: IpVersion;
  readonly bytes: Uint8Array;
  /** Where its transport header begins. */
  readonly start: number;
  /** Payload of each segment of a super-packet; undefined if it is none. */
  readonly segment: number | undefined;
}

/** The size to fragment the packet to, 0 if it fits; or the size that would fit if it must not be fragmented. */
export type Fit = { readonly segmentTo: number } | { readonly wouldFit: number };

/** @param mtu of the realm that it goes into */
export function fitOf(packet: Packet, leaving: Leaving, mtu: number | undefined): Fit {
  const { version, bytes, segment } = leaving;
  const [before, after] = [packet.ip.version, version];
  // RFC 7915 section 4: a packet without DF is fragmented to the least MTU of IPv6.
  const isUnknown = before === 4 && after === 6 && !packet.ip.dontFragment && mtu === undefined;
  const least = isUnknown && segment === undefined ? LEAST_IPV6_MTU : undefined;
  let most = least ?? mtuFor(after, mtu) ?? Number.POSITIVE_INFINITY;
  let isLarge = sizeOf(packet, leaving) > most;
  if (before === 6 && after === 4 && bytes.length > LONGEST_IPV4) {
    most = Math.min(most, LONGEST_IPV4);
    isLarge = true;
  }
  if (!isLarge) return { segmentTo: 0 };
  const mayBeFragmented =
    before === 4
      ? !packet.ip.dontFragment
      : // Only the sender fragments IPv6.
        after === 4 && (bytes[6]! & DONT_FRAGMENT) === 0;
  if (mayBeFragmented && segment === undefined) return { segmentTo: most };
  const wouldFit = most + HEADER_LENGTH[before] - HEADER_LENGTH[after];
  return { wouldFit: before === 6 ? Math.max(LEAST_IPV6_MTU, wouldFit) : wouldFit };
}

/** The most that an MSS option may say: what a realm of that MTU takes without IP and TCP headers. */
export function mssFor(version: IpVersion, mtu: number | undefined): number {
  const most = mtuFor(version, mtu);
  return most === undefined ? Number.POSITIVE_INFINITY : most - HEADER_LENGTH[version] - 20;
}

function sizeOf(packet: Packet, { bytes, start, segment }: Leaving): number {
  if (segment === undefined) return bytes.length;
  const transport = packet.kind === 'tcp' ? (bytes[start + 12]! >> 4) * 4 : 8;
  return Math.min(bytes.length, start + transport + segment);
}

/** RFC 8200 section 5: IPv6 needs 1280. */
function mtuFor(version: IpVersion, mtu: number | undefined): number | undefined {
  return mtu !== undefined && version === 6 ? Math.max(LEAST_IPV6_MTU, mtu) : mtu;
}

const HEADER_LENGTH: Record<IpVersion, number> = { 4: 20, 6: 40 };
const LEAST_IPV6_MTU = 1280;
const LONGEST_IPV4 = 65_535;
const DONT_FRAGMENT = 0x40;
