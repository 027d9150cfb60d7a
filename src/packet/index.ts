/**
 * IP packets as bytes: headers, checksums and the virtio-net header in front.
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
export { PacketHeader, PacketKind, Parse, Protocol } from './header.ts';
export * from './virtio.ts';
