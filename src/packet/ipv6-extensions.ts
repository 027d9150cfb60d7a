/**
 * Walks the extension headers of IPv6
 * ([RFC 8200 section 4](https://www.rfc-editor.org/rfc/rfc8200#section-4)) to the transport header, and
 * refuses those that are not supported.
 * @module
 */
import { FragmentPart, Parse } from './fields.ts';

/** Next header numbers. */
export const Extension = {
  HopByHop: 0,
  Routing: 43,
  Fragment: 44,
  Authentication: 51,
  DestinationOptions: 60,
} as const;

export const FRAGMENT_HEADER = 8;

/** The part of `PacketHeader` that the walk reads and sets. */
export interface ExtensionWalk {
  protocol: number;
  transport: number;
  readonly end: number;
  readonly part: FragmentPart;
  fragmentHeader: number;
  identification: number;
  isAuthenticated: boolean;
  setFragment(bits: number, identification: number, payload: number): void;
  isPlaced(): boolean;
}

/**
 * Walks from the fixed header, whose fields must be set, to the transport header or to the payload of a
 * later fragment. Sets `protocol`, `transport` and the fields of a fragment.
 */
export function walkExtensions(view: DataView, header: ExtensionWalk): Parse {
  const first = header.transport;
  for (let count = 0; isExtension(header.protocol); count++) {
    const { protocol, transport: at, end } = header;
    if (UNSUPPORTED_EXTENSIONS.includes(protocol)) return Parse.Unsupported;
    if (protocol === Extension.HopByHop && at !== first) return Parse.Malformed;
    if (at + MIN_EXTENSION > end) return Parse.Malformed;
    const length = extensionLength(view, at, protocol);
    if (at + length > end) return Parse.Malformed;
    const outcome = checkExtension(view, at, length, protocol);
    if (outcome !== Parse.Ok) return outcome;
    if (count === MAX_EXTENSIONS) return Parse.Unsupported;

    header.protocol = view.getUint8(at);
    header.transport = at + length;
    if (protocol === Extension.Authentication) header.isAuthenticated = true;
    if (protocol !== Extension.Fragment) continue;
    // Two fragment headers could contradict each other.
    if (header.fragmentHeader >= 0) return Parse.Malformed;
    header.fragmentHeader = at;
    header.identification = view.getInt32(at + 4);
    const offsetAndMore = view.getUint16(at + 2);
    const bits = (offsetAndMore >>> 3) | ((offsetAndMore & 1) << 13);
    if (bits === 0) continue; // an atomic fragment (RFC 6946)
    header.setFragment(bits, header.identification, at + length);
    if (!header.isPlaced()) return Parse.Malformed;
    if (header.part === FragmentPart.Later) return Parse.Ok;
  }
  return Parse.Ok;
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
      return UNSUPPORTED_EXTENSIONS.includes(protocol);
  }
}

/** Returns a length in bytes. The field counts units of 8 bytes after the first; of authentication, 4 bytes. */
function extensionLength(view: DataView, at: number, protocol: number): number {
  if (protocol === Extension.Fragment) return FRAGMENT_HEADER;
  const field = view.getUint8(at + 1);
  return protocol === Extension.Authentication ? (field + 2) << 2 : (field + 1) << 3;
}

function checkExtension(view: DataView, at: number, length: number, protocol: number): Parse {
  switch (protocol) {
    case Extension.HopByHop:
    case Extension.DestinationOptions:
      return checkOptions(view, at + 2, at + length);
    case Extension.Routing:
      return view.getUint8(at + SEGMENTS_LEFT) === 0 ? Parse.Ok : Parse.Unsupported;
    default:
      return Parse.Ok;
  }
}

/**
 * Checks hop-by-hop and destination options. The home address option
 * ([RFC 6275](https://www.rfc-editor.org/rfc/rfc6275)) is not supported: it holds an address of the sender's
 * realm.
 */
function checkOptions(view: DataView, start: number, end: number): Parse {
  let outcome: Parse = Parse.Ok;
  let at = start;
  while (at < end) {
    const type = view.getUint8(at);
    if (type === OPTION_PAD1) {
      at++;
      continue;
    }
    if (at + 1 >= end) return Parse.Malformed;
    at += 2 + view.getUint8(at + 1);
    if (at > end) return Parse.Malformed;
    if (type === OPTION_HOME_ADDRESS) outcome = Parse.Unsupported;
  }
  return outcome;
}

/** Mobility, HIP, shim6, and the two experimental numbers. */
const UNSUPPORTED_EXTENSIONS: readonly number[] = [135, 139, 140, 253, 254];
const MAX_EXTENSIONS = 8;
const MIN_EXTENSION = 8;
const SEGMENTS_LEFT = 3;
const OPTION_PAD1 = 0;
const OPTION_HOME_ADDRESS = 0xc9;
