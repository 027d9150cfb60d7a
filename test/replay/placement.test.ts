/**
 * What the translator gets is what a gateway would have got: a packet to a presence, with right checksums, that comes out
 * with both addresses of the other realm. The packets are compared with ones that are built for these addresses.
 */
import { describe, expect, test } from 'vitest';
import { CaptureReader } from '../../src/replay/capture-reader.ts';
import { Conversations } from '../../src/replay/conversations.ts';
import { LinkLayer } from '../../src/replay/link-layer.ts';
import { Placement } from '../../src/replay/placement.ts';
import { PreparedPacket } from '../../src/replay/prepared-packet.ts';
import { ReplayPlan } from '../../src/replay/replay-plan.ts';
import { echoPacket, icmpError, tcpPacket, udpPacket } from '../support/packets.ts';
import { pcapOf } from './capture-bytes.ts';

const SYN = 2;
const SYN_ACK = 0x12;
const TCP = { sourcePort: 40_000, destinationPort: 80 };
const TCP_BACK = { sourcePort: 80, destinationPort: 40_000 };
const UDP = { sourcePort: 4000, destinationPort: 53 };

/** The packets as they enter the translator, with their realms. */
function placed(packets: readonly Uint8Array[]): { realm: unknown; bytes: Uint8Array }[] {
  const file = pcapOf(packets.map((bytes) => ({ bytes })));
  const conversations = new Conversations();
  const packet = new PreparedPacket();
  const link = new LinkLayer();
  const look = (use: () => void): void => {
    const reader = new CaptureReader((captured) => {
      packet.prepare(captured, link.findIp(captured));
      use();
    });
    reader.push(file);
    reader.end();
  };
  look(() => conversations.observe(packet));
  conversations.finish();
  const placement = new Placement(
    new ReplayPlan({ kind: 'inferred' }, conversations),
    conversations
  );
  const results: { realm: unknown; bytes: Uint8Array }[] = [];
  look(() => {
    const realm = placement.place(packet, false);
    results.push({ realm, bytes: packet.bytes.slice(packet.start, packet.end) });
  });
  return results;
}

describe.each([
  // Client, service; the presence of the service, and that of the client.
  ['IPv4', '10.0.0.9', '10.0.0.5', '198.18.0.1', '198.19.0.1'],
  ['IPv6', 'fd00::9', 'fd00::5', '2001:2:0:1::1', '2001:2:0:2::1'],
])('%s', (family, client, service, servicePresence, clientPresence) => {
  const forth = { source: client, destination: service };
  const back = { source: service, destination: client };
  const toPresence = { source: client, destination: servicePresence };
  const toClient = { source: service, destination: clientPresence };

  test('requests go to the presence of the service, answers to that of the client', () => {
    const payload = Uint8Array.of(1, 2, 3);
    const results = placed([
      tcpPacket(forth, { ...TCP, flags: SYN }),
      tcpPacket(back, { ...TCP_BACK, flags: SYN_ACK }),
      udpPacket(forth, { ...UDP, payload }),
      echoPacket(forth, {}),
      echoPacket(back, { reply: true }),
    ]);
    expect(results).toEqual([
      { realm: 0, bytes: tcpPacket(toPresence, { ...TCP, flags: SYN }) },
      { realm: 1, bytes: tcpPacket(toClient, { ...TCP_BACK, flags: SYN_ACK }) },
      { realm: 0, bytes: udpPacket(toPresence, { ...UDP, payload }) },
      { realm: 0, bytes: echoPacket(toPresence, {}) },
      { realm: 1, bytes: echoPacket(toClient, { reply: true }) },
    ]);
  });

  test('a checksum that is wrong stays wrong, and an absent one of UDP stays absent', () => {
    const wrong = { ...TCP, flags: SYN, checksum: { receiver: 0x1234 } };
    const [first, , third] = placed([
      tcpPacket(forth, wrong),
      tcpPacket(back, { ...TCP_BACK, flags: SYN_ACK }),
      udpPacket(forth, { ...UDP, checksum: 'none' }),
    ]);
    expect(first!.bytes).toEqual(tcpPacket(toPresence, wrong));
    expect(third!.bytes).toEqual(udpPacket(toPresence, { ...UDP, checksum: 'none' }));
  });

  test.each([
    ['of the service’s host', service],
    ['of a router', family === 'IPv4' ? '172.16.0.1' : 'fd01::1'],
  ])('an ICMP error %s quotes the packet as it came there', (_, from) => {
    const type = family === 'IPv4' ? 11 : 3;
    const quoted = tcpPacket(forth, { ...TCP, flags: SYN });
    const [, , error] = placed([
      quoted,
      tcpPacket(back, { ...TCP_BACK, flags: SYN_ACK }),
      icmpError({ source: from, destination: client }, { type, quoted }),
    ]);
    const came = tcpPacket(
      { source: clientPresence, destination: service },
      { ...TCP, flags: SYN }
    );
    const expected = icmpError(
      { source: from, destination: clientPresence },
      { type, quoted: came }
    );
    expect(error).toEqual({ realm: 1, bytes: expected });
  });
});
