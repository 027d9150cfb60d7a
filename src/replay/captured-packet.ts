/**
 * A packet as the readers of captures give it. One object is reused for all packets of a capture.
 * @module
 */

/** Its fields are valid only during the call that gives it. */
export class CapturedPacket {
  /** The number of the packet in the capture; the first is 1, as in Wireshark. */
  number = 0;
  /** Time of the capture in ms since 1970, with fractions. 0 if the format has none for this packet. */
  timeMs = 0;
  /** A [link type](https://www.tcpdump.org/linktypes.html): what `bytes[start]` begins with. */
  linkType = 0;
  bytes: Uint8Array = new Uint8Array(0);
  view: DataView = new DataView(this.bytes.buffer);
  start = 0;
  /** The offset behind the last captured byte in `bytes`. */
  end = 0;
  /** The length in bytes that the packet had on the wire, at least `end - start`. A snap length makes it larger. */
  wireLength = 0;
}

/**
 * The most bytes of one packet that are taken, as in libpcap (`MAXIMUM_SNAPLEN`). A packet that claims more shows that
 * the capture is damaged, or made to take memory.
 */
export const MAX_CAPTURED_BYTES = 262_144;
