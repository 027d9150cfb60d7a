/** A tunnel whose process was stopped for a while, and whose connections have ended meanwhile. */
import { expect, test } from 'vitest';
import type { TunnelConnection } from '../../src/tunnel/connection.ts';
import { SteeredSender } from '../../src/tunnel/flow-steering.ts';
import { FrameType } from '../../src/tunnel/frame.ts';
import { FakeClock } from '../support/fake-clock.ts';

/** What a sender needs of a connection. */
function connection(): TunnelConnection {
  const buffer = Buffer.alloc(2048);
  const parts = { buffer, reserve: () => 0, commit: () => true, flush: () => {} };
  return parts as unknown as TunnelConnection;
}

/** A packet of TCP from a port, behind an empty virtio-net header. */
function packetFrom(port: number): Buffer {
  const packet = Buffer.alloc(50);
  packet.set([0x45, 0, 0, 40, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 5, 10, 0, 0, 6], 10);
  packet.writeUInt16BE(port, 30);
  return packet;
}

test('the first packets of all flows after the pause take a connection that there is', () => {
  const clock = new FakeClock();
  const sender = new SteeredSender({ droppedFull: 0 } as never, clock);
  sender.reset(true);
  const connections = Array.from({ length: 8 }, connection);
  for (const each of connections) sender.add(each);
  const send = (port: number): boolean => {
    const at = sender.reserve();
    const packet = packetFrom(port);
    packet.copy(sender.buffer, at);
    return sender.commit(FrameType.Packet, packet.length);
  };
  for (let port = 1; port <= 200; port++) expect(send(port)).toBe(true);
  sender.flush();
  clock.advance(3000);
  for (const each of connections.slice(1)) sender.remove(each);
  for (let port = 1; port <= 200; port++) expect(send(port)).toBe(true);
});
