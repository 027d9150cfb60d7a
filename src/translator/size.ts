/**
 * Sizes: the length of a packet's headers, and MSS clamping
 * ([RFC 9293 section 3.7.1](https://www.rfc-editor.org/rfc/rfc9293#section-3.7.1)).
 *
 * The MSS option of a TCP segment with SYN is lowered, in both directions, to what fits the realms on both
 * sides: the smallest `mtu` minus 40 (IPv4) or 60 (IPv6). A realm without `mtu` does not count.
 * @module
 */
import { adjustChecksum, wordDelta } from '../packet/checksum.ts';
import { TCP_DATA_OFFSET, TCP_MIN_HEADER } from '../packet/fields.ts';
import type { PacketHeader } from '../packet/header.ts';

/** Returns the length in bytes of all headers in front of the TCP or UDP payload. */
export function headersLength(view: DataView, header: PacketHeader, isTcp: boolean): number {
  const transport = isTcp ? (view.getUint8(header.transport + TCP_DATA_OFFSET) >>> 4) << 2 : 8;
  return header.transport - header.start + transport;
}

/**
 * Lowers every MSS option of a segment with SYN to `limit` and updates its checksum, unless that is partial
 * and does not cover the options. Never raises or adds an option; stops at malformed options.
 */
export function clampMss(
  view: DataView,
  header: PacketHeader,
  limit: number,
  isPartial: boolean
): void {
  const { transport } = header;
  const end = transport + ((view.getUint8(transport + TCP_DATA_OFFSET) >>> 4) << 2);
  let at = transport + TCP_MIN_HEADER;
  while (at < end) {
    const kind = view.getUint8(at);
    if (kind === OPTION_END) return;
    if (kind === OPTION_NOP) {
      at++;
      continue;
    }
    if (at + 1 >= end) return;
    const length = view.getUint8(at + 1);
    if (length < 2 || at + length > end) return;
    if (kind === OPTION_MSS && length === 4) {
      const before = view.getUint16(at + 2);
      if (before > limit) {
        view.setUint16(at + 2, limit);
        if (!isPartial) updateOptionChecksum(view, header, at + 2, before, limit);
      }
    }
    at += length;
  }
}

/** Updates the checksum. An option at an odd offset spans two words of the sum, so its bytes are swapped. */
function updateOptionChecksum(
  view: DataView,
  header: PacketHeader,
  at: number,
  before: number,
  after: number
): void {
  const isOdd = ((at - header.transport) & 1) === 1;
  const delta = isOdd ? wordDelta(swapped(before), swapped(after)) : wordDelta(before, after);
  view.setUint16(header.checksum, adjustChecksum(view.getUint16(header.checksum), delta));
}

function swapped(word: number): number {
  return ((word & 0xff) << 8) | (word >>> 8);
}

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
