/**
 * Writes packets as a [pcap](https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-05.html) file,
 * and lets tshark judge their checksums.
 * @module
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** Why tshark cannot be asked; undefined if it can, and always in CI, so as to fail there. */
export function tsharkSkipReason(): string | undefined {
  if (process.env.CI !== undefined) return undefined;
  return spawnSync('tshark', ['--version']).status === 0 ? undefined : 'tshark is not installed';
}

/** Protocols whose checksums tshark judges; UDP-Lite goes with UDP. */
export const JUDGED = ['ip', 'tcp', 'udp', 'sctp', 'icmp', 'icmpv6'] as const;

/** The indexes of the packets in which tshark finds a bad checksum of one of the protocols. */
export function badChecksums(
  packets: readonly Uint8Array[],
  protocols: readonly (typeof JUDGED)[number][] = JUDGED
): number[] {
  const filter = protocols.map((protocol) => `${protocol}.checksum.status == "Bad"`).join(' || ');
  const folder = mkdtempSync(join(tmpdir(), 'differential-'));
  try {
    const file = join(folder, 'packets.pcap');
    writeFileSync(file, pcap(packets));
    writeFileSync(join(folder, 'disabled_protos'), payloadProtocols().join('\n'));
    const frames = tshark(
      ['-n', '-r', file, ...PREFERENCES, '-Y', filter, '-T', 'fields', '-e', 'frame.number'],
      folder
    );
    return frames.split('\n').flatMap((line) => (line === '' ? [] : [Number(line) - 1]));
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** What could find packets in payloads, which are random. */
function payloadProtocols(): readonly string[] {
  disabled ??= listPayloadProtocols();
  return disabled;
}

let disabled: readonly string[] | undefined;

function listPayloadProtocols(): readonly string[] {
  const lines = tshark(['-G', 'protocols'], tmpdir()).split('\n');
  return lines
    .map((line) => line.split('\t')[2] ?? '')
    .filter((name) => name !== '' && !PROTOCOLS.has(name));
}

function tshark(args: readonly string[], configuration: string): string {
  return execFileSync('tshark', args, {
    encoding: 'utf8',
    env: { ...process.env, WIRESHARK_CONFIG_DIR: configuration },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: TIMEOUT_MS,
    maxBuffer: 1e8,
  });
}

function pcap(packets: readonly Uint8Array[]): Uint8Array {
  const parts = [words(0xa1b2c3d4, 0x00040002, 0, 0, 0x40000, LINKTYPE_RAW)];
  for (const [i, packet] of packets.entries()) {
    parts.push(words(i, 0, packet.length, packet.length), packet);
  }
  return Buffer.concat(parts);
}

/** Little-endian, as the file's first word says. */
function words(...values: number[]): Uint8Array {
  const bytes = Buffer.alloc(4 * values.length);
  for (const [i, value] of values.entries()) bytes.writeUInt32LE(value, 4 * i);
  return bytes;
}

const LINKTYPE_RAW = 101;
const TIMEOUT_MS = 60_000;

const PROTOCOLS: ReadonlySet<string> = new Set([
  ...['frame', 'raw', 'ip', 'ipv6', 'ipv6.hopopts', 'ipv6.dstopts', 'ipv6.routing'],
  ...['ipv6.fraghdr', 'ah', 'tcp', 'udp', 'udplite', 'sctp', 'icmp', 'icmpv6'],
]);

const PREFERENCES: readonly string[] = [
  'ip.check_checksum:TRUE',
  'tcp.check_checksum:TRUE',
  'udp.check_checksum:TRUE',
  'udplite.check_checksum:TRUE',
  'sctp.checksum:CRC 32c',
].flatMap((preference) => ['-o', preference]);
