/**
 * The IP headers of a packet, as far as cutting it asks: what every piece of it must carry
 * ([RFC 791 section 3.2](https://www.rfc-editor.org/rfc/rfc791#section-3.2),
 * [RFC 8200 section 4.5](https://www.rfc-editor.org/rfc/rfc8200#section-4.5)). What the packet is
 * for does not matter, so any protocol is good.
 * @module
 */
import { fold } from './checksum.ts';
import {
  IPV4_DONT_FRAGMENT,
  IPV4_FRAGMENT,
  IPV4_FRAGMENT_OFFSET,
  IPV4_MIN_HEADER,
  IPV4_MORE_FRAGMENTS,
  IPV4_PROTOCOL,
  IPV4_TOTAL_LENGTH,
  IPV6_HEADER,
  IPV6_NEXT_HEADER,
  IPV6_PAYLOAD_LENGTH,
} from './fields.ts';
import { Extension, FRAGMENT_HEADER } from './ipv6-extensions.ts';

/** Valid iff the last `read` returned true. Offsets count from the packet's first byte. */
export class IpLayout {
  family: 4 | 6 = 4;
  /** What stands at `transport`. */
  protocol = 0;
  /** Behind the IPv4 header; behind the last extension header. Of a later fragment, its payload. */
  transport = 0;
  /** Length of the headers in front of a fragment's payload, with the fragment header it may have. */
  perFragment = 0;
  /** The `next header` field that names what follows the per-fragment headers; IPv6 only. */
  nextHeader = 0;
  /** Whether `perFragment` ends with a fragment header; IPv6 only. */
  hasFragmentHeader = false;
  /** IPv4 only: that is the sender's wish, which IPv6 has for every packet. */
  dontFragment = false;
  /** Where the payload belongs in its datagram, in bytes. */
  offset = 0;
  moreFragments = false;

  get isFragment(): boolean {
    return this.moreFragments || this.offset !== 0;
  }

  /** Whether the headers of `view[start .. end)` are whole and its lengths agree. */
  read(view: DataView, start: number, end: number): boolean {
    if (end - start < IPV4_MIN_HEADER) return false;
    const version = view.getUint8(start) >>> 4;
    if (version === 4) return this.#readIpv4(view, start, end);
    return version === 6 && this.#readIpv6(view, start, end);
  }

  #readIpv4(view: DataView, start: number, end: number): boolean {
    const length = (view.getUint8(start) & 15) << 2;
    if (length < IPV4_MIN_HEADER || length > end - start) return false;
    if (view.getUint16(start + IPV4_TOTAL_LENGTH) !== end - start) return false;
    let sum = 0;
    for (let at = start; at < start + length; at += 2) sum += view.getUint16(at);
    if (fold(sum) !== 0xffff) return false;
    if (!areOptionsWhole(view, start + IPV4_MIN_HEADER, start + length)) return false;

    const fragment = view.getUint16(start + IPV4_FRAGMENT);
    this.family = 4;
    this.protocol = view.getUint8(start + IPV4_PROTOCOL);
    this.transport = length;
    this.perFragment = length;
    this.hasFragmentHeader = false;
    this.dontFragment = (fragment & IPV4_DONT_FRAGMENT) !== 0;
    this.offset = (fragment & IPV4_FRAGMENT_OFFSET) << 3;
    this.moreFragments = (fragment & IPV4_MORE_FRAGMENTS) !== 0;
    return true;
  }

  #readIpv6(view: DataView, start: number, end: number): boolean {
    const length = end - start;
    if (length < IPV6_HEADER) return false;
    if (IPV6_HEADER + view.getUint16(start + IPV6_PAYLOAD_LENGTH) !== length) return false;
    this.family = 6;
    this.perFragment = IPV6_HEADER;
    this.nextHeader = IPV6_NEXT_HEADER;
    this.hasFragmentHeader = false;
    this.dontFragment = false;
    this.offset = 0;
    this.moreFragments = false;

    // The headers up to routing, else hop-by-hop options, are for the routers on the way.
    let protocol = view.getUint8(start + IPV6_NEXT_HEADER);
    let at = IPV6_HEADER;
    while (isExtension(protocol)) {
      if (at + MIN_EXTENSION > length) return false;
      if (protocol === Extension.HopByHop && at !== IPV6_HEADER) return false;
      if (protocol === Extension.Fragment && this.hasFragmentHeader) return false;
      const header = at;
      at += extensionLength(protocol, view.getUint8(start + at + 1));
      if (at > length) return false;
      const isOfEveryFragment =
        protocol === Extension.HopByHop ||
        protocol === Extension.Routing ||
        protocol === Extension.Fragment;
      if (isOfEveryFragment && !this.hasFragmentHeader) {
        this.perFragment = at;
        this.nextHeader = header;
      }
      if (protocol === Extension.Fragment) {
        const fragment = view.getUint16(start + header + 2);
        this.hasFragmentHeader = true;
        this.offset = fragment & ~7;
        this.moreFragments = (fragment & 1) !== 0;
      }
      protocol = view.getUint8(start + header);
      if (this.offset !== 0) break;
    }
    this.protocol = protocol;
    this.transport = at;
    return true;
  }
}

/**
 * Blanks the IPv4 options in `view[start .. end)` that only a first fragment has (RFC 791 section
 * 3.1), as Linux does: with no-operation, so that the others stay where they are.
 */
export function blankUncopiedOptions(view: DataView, start: number, end: number): void {
  let at = start;
  while (at < end && view.getUint8(at) !== OPTION_END) {
    const type = view.getUint8(at);
    const next = type === OPTION_NOP ? at + 1 : at + view.getUint8(at + 1);
    if ((type & OPTION_COPIED) === 0) for (; at < next; at++) view.setUint8(at, OPTION_NOP);
    at = next;
  }
}

function areOptionsWhole(view: DataView, start: number, end: number): boolean {
  let at = start;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === OPTION_END) return true;
    if (type === OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end || view.getUint8(at + 1) < 2) return false;
    at += view.getUint8(at + 1);
  }
  return at === end;
}

function isExtension(protocol: number): boolean {
  switch (protocol) {
    case Extension.HopByHop:
    case Extension.Routing:
    case Extension.Fragment:
    case Extension.Authentication:
    case Extension.DestinationOptions:
      return true;
    default:
      return false;
  }
}

/** In bytes; `field` counts units of 8 bytes after the first, or, of authentication, of 4. */
function extensionLength(protocol: number, field: number): number {
  if (protocol === Extension.Fragment) return FRAGMENT_HEADER;
  return protocol === Extension.Authentication ? (field + 2) << 2 : (field + 1) << 3;
}

const MIN_EXTENSION = 8;
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_COPIED = 0x80;
