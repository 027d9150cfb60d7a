/**
 * Reads the IP headers of a packet that is to be segmented or fragmented: which of them every piece must
 * carry ([RFC 791 section 3.2](https://www.rfc-editor.org/rfc/rfc791#section-3.2),
 * [RFC 8200 section 4.5](https://www.rfc-editor.org/rfc/rfc8200#section-4.5)). It accepts every protocol.
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

/** The headers of one packet. Valid iff the last `read` returned true. Offsets count from its first byte. */
export class IpLayout {
  family: 4 | 6 = 4;
  /** The protocol number of the header at `transport`. */
  protocol = 0;
  /** The offset behind the IPv4 header or the last extension header; in a later fragment, that of the payload. */
  transport = 0;
  /** The length of the headers that every fragment carries, including an existing fragment header. */
  perFragment = 0;
  /** The offset of the `next header` field for what follows the per-fragment headers; IPv6 only. */
  nextHeader = 0;
  /** Whether `perFragment` ends with a fragment header; IPv6 only. */
  hasFragmentHeader = false;
  /** Whether DF is set; always false for IPv6. */
  dontFragment = false;
  /** The offset of the payload in its datagram, in bytes. */
  offset = 0;
  moreFragments = false;

  get isFragment(): boolean {
    return this.moreFragments || this.offset !== 0;
  }

  /** Reads the headers of `view[start .. end)`. Returns whether they are complete and their lengths agree. */
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

    // Routers read the headers up to routing, or hop-by-hop options, so every fragment carries them.
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
 * Overwrites the IPv4 options in `view[start .. end)` that only the first fragment carries (RFC 791 section
 * 3.1) with no-operation, as Linux does, so that the others keep their place.
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

/** Returns a length in bytes. `field` counts units of 8 bytes after the first; of authentication, 4 bytes. */
function extensionLength(protocol: number, field: number): number {
  if (protocol === Extension.Fragment) return FRAGMENT_HEADER;
  return protocol === Extension.Authentication ? (field + 2) << 2 : (field + 1) << 3;
}

const MIN_EXTENSION = 8;
const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_COPIED = 0x80;
