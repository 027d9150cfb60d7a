/** The zone that most DNS tests ask, and clients that encode and decode by `dns-packet` alone. */
import { createSocket } from 'node:dgram';
import { connect } from 'node:net';
import {
  type DecodedPacket,
  decode,
  encode,
  type Packet,
  type Question,
  RECURSION_DESIRED,
  streamDecode,
  streamEncode,
} from 'dns-packet';
import { Zone, type ZoneData } from '../../src/dns/index.ts';

export const ZONE_DATA: ZoneData = {
  origin: 'openstack.test',
  hosts: [
    {
      name: 'keystone',
      addresses: ['100.64.0.2'],
      ports: [{ protocol: 'tcp', port: 5000, service: 'identity' }],
      aliases: ['identity'],
    },
    {
      name: 'rabbit.mq',
      addresses: ['100.64.0.3', '2001:db8:64::3'],
      ports: [{ protocol: 'tcp', port: 5672, service: 'amqp' }],
      texts: ['vhost=/nova'],
    },
    { name: 'v6only', addresses: ['2001:db8:64::4'] },
    {
      name: 'large',
      addresses: Array.from({ length: 60 }, (_, i) => `100.64.1.${i + 1}`),
      aliases: ['huge'],
    },
    {
      name: 'apps',
      addresses: ['100.64.0.5', '2001:db8:64::5'],
      wildcard: true,
      aliases: ['*.sites'],
      bindings: [
        { type: 'HTTPS', priority: 1, alpn: ['h2', 'h3'] },
        { type: 'HTTPS', prefix: '_8443._https', priority: 1, port: 8443 },
        { type: 'SVCB', prefix: '_dns', priority: 1, target: 'v6only', alpn: ['dot'], port: 853 },
      ],
    },
    { name: 'web.apps', addresses: ['100.64.0.6'] },
    {
      name: 'portal',
      addresses: [],
      bindings: [{ type: 'HTTPS', priority: 0, target: 'apps' }],
    },
  ],
  pointers: [
    { address: '100.64.0.2', name: 'keystone' },
    { address: '100.64.0.9', name: 'compute-1.site-a.example.org.' },
    { address: '2001:db8:64::3', name: 'rabbit.mq' },
  ],
  reverse: ['100.64.0.0/20', '2001:db8:64::/64'],
  serial: 7,
  ttlSeconds: 60,
  negativeTtlSeconds: 10,
  nameserver: 'ns',
  nameserverAddresses: ['100.64.0.1'],
};

/** A client that may ask and has no rate, whatever the options of the resolver are. */
export const LOCAL = '127.0.0.1';

export const ZONE: Zone = Zone.compile(ZONE_DATA);

/** A decoded answer, with the fields that the types of dns-packet leave out. */
export type Answer = DecodedPacket & { rcode: string; answers: Section; authorities: Section };
type Section = { name: string; type: string; ttl: number; data: unknown }[];

/** A query with RD set and id 0x1234; `udpPayloadSize` adds an OPT record. */
export function query(name: string, type: string, udpPayloadSize?: number): Buffer {
  return encode(packet(name, type, udpPayloadSize));
}

/** A query as `query` makes it, with its length in front for TCP. */
export function framedQuery(name: string, type: string): Buffer {
  return streamEncode(packet(name, type));
}

function packet(name: string, type: string, udpPayloadSize?: number): Packet {
  return {
    id: 0x1234,
    flags: RECURSION_DESIRED,
    questions: [{ name, type } as Question],
    additionals:
      udpPayloadSize === undefined
        ? []
        : [
            {
              type: 'OPT',
              name: '.',
              udpPayloadSize,
              extendedRcode: 0,
              ednsVersion: 0,
              flags: 0,
              flag_do: false,
              options: [],
            },
          ],
  };
}

export function decodeAnswer(bytes: Uint8Array | undefined): Answer {
  if (bytes === undefined) throw new Error('no answer');
  return decode(Buffer.from(bytes)) as Answer;
}

/** Sends one datagram from `source` and resolves to the first that comes back. */
export function askUdp(port: number, message: Uint8Array, source: string = LOCAL): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const socket = createSocket('udp4');
    socket.on('error', reject);
    socket.on('message', (reply) => {
      socket.close();
      resolve(reply);
    });
    socket.bind(0, source, () => socket.send(message, port, '127.0.0.1'));
  });
}

/**
 * Writes `chunks` to a TCP connection from `source` one after the other, then ends its sending half; resolves to
 * the answers that came until the far side closed.
 */
export function askTcp(
  port: number,
  chunks: readonly Uint8Array[],
  source: string = LOCAL
): Promise<Answer[]> {
  return new Promise((resolve, reject) => {
    const received: Buffer[] = [];
    const socket = connect({
      port,
      host: '127.0.0.1',
      localAddress: source,
      noDelay: true,
      allowHalfOpen: true,
    });
    const send = (i: number): void => {
      if (i === chunks.length) socket.end();
      else socket.write(chunks[i]!, () => setImmediate(send, i + 1));
    };
    socket.on('connect', () => send(0));
    socket.on('data', (chunk) => received.push(chunk));
    socket.on('error', reject);
    socket.on('close', () => resolve(decodeStream(Buffer.concat(received))));
  });
}

/** Decodes the whole answers of a stream; the end of it may be cut off. */
function decodeStream(stream: Buffer): Answer[] {
  const answers: Answer[] = [];
  while (stream.length >= 2 && stream.length >= 2 + stream.readUInt16BE()) {
    answers.push(streamDecode(stream) as Answer);
    stream = stream.subarray(2 + stream.readUInt16BE());
  }
  return answers;
}
