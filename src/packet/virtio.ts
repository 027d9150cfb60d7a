/**
 * The virtio-net header
 * ([VIRTIO 1.2 section 5.1.6](https://docs.oasis-open.org/virtio/virtio/v1.2/virtio-v1.2.html)), which is in
 * front of every packet of a device and in a tunnel frame. It says what the sender's kernel has left to do:
 * complete a partial transport checksum, and split a super-packet into segments.
 *
 * ```
 *  0        1          2         4          6            8             10
 * +--------+----------+---------+----------+------------+-------------+
 * | flags  | gso_type | hdr_len | gso_size | csum_start | csum_offset |  packet ...
 * +--------+----------+---------+----------+------------+-------------+
 * ```
 *
 * 16-bit fields are little-endian. Lengths and offsets are in bytes and count from the first byte of the
 * packet. If all ten bytes are zero, the packet is no super-packet and its checksums are complete.
 * @module
 */

/** The length of the header in bytes, without `num_buffers`. */
export const VNET_HEADER_LENGTH = 10;

/** The longest packet of a device in bytes, without the virtio-net header. */
export const MAX_PACKET_LENGTH = 65_535;

export const VNET_FLAGS = 0;
export const VNET_GSO_TYPE = 1;
export const VNET_HDR_LEN = 2;
export const VNET_GSO_SIZE = 4;
export const VNET_CSUM_START = 6;
export const VNET_CSUM_OFFSET = 8;

/** `flags`: the checksum at `csum_start + csum_offset` holds only the pseudo-header sum. */
export const VNET_F_NEEDS_CSUM = 0x01;
/** `flags`: the sender has verified the checksums. */
export const VNET_F_DATA_VALID = 0x02;
/** `flags`: all bits that a TUN uses. The first byte of an IP packet always has other bits. */
export const VNET_F_KNOWN = 0x03;

export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
export const VNET_GSO_UDP = 3;
export const VNET_GSO_TCPV6 = 4;
export const VNET_GSO_UDP_L4 = 5;
/** A bit of `gso_type`: the TCP super-packet has CWR set. */
export const VNET_GSO_ECN = 0x80;
