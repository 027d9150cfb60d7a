/**
 * IP packets as bytes: headers, checksums, the virtio-net header, segmentation and pcapng files.
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
export { type ProbeInput, probePacket } from './probe.ts';
export { PacketSegmenter, SegmentResult } from './segmenter.ts';
export { readUdpFrame, type UdpDatagram, type UdpDatagramInput, udpFrame } from './udp-frame.ts';
export * from './virtio.ts';
