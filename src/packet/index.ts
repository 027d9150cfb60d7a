/**
 * IP packets as bytes: headers, checksums and the virtio-net header in front; packets cut to the size
 * that a device takes, and packets written down.
 * @module
 */
export {
  adjustChecksum,
  adjustPartialChecksum,
  fold,
  foldDelta,
  longDelta,
  sumBytes,
  wordDelta,
} from './checksum.ts';
export { FragmentPart, PacketKind, Parse, Protocol } from './fields.ts';
export { flowHash } from './flow-hash.ts';
export { PacketHeader } from './header.ts';
export { type PcapngDirection, type PcapngOptions, PcapngWriter } from './pcapng.ts';
export { PacketSegmenter, Segmenting } from './segmenter.ts';
export { readUdpFrame, type UdpDatagram, type UdpDatagramInput, udpFrame } from './udp-frame.ts';
export * from './virtio.ts';
