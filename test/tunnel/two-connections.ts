import { expect, vi } from 'vitest';
import { CONNECTION_CHECK_MS } from '../../src/tunnel/connection-scaler.ts';
import { FrameType, type MtlsTunnel } from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { type RawPeer, WELCOME } from '../support/raw-peer.ts';
import { sendRound } from './packets.ts';
import { dial, next, serve } from './scene.ts';

/**
 * A tunnel to a raw peer whose two connections are up. Packets 0 to 2 of two flows have gone over the first
 * one, so that both flows are known, and the new connection takes one.
 */
export async function twoConnections(): Promise<{
  tunnel: MtlsTunnel;
  peers: readonly RawPeer[];
  clock: FakeClock;
}> {
  const peers: RawPeer[] = [];
  const port = await serve((peer) => {
    peers.push(peer);
    peer.send(FrameType.Welcome, { ...WELCOME, lanes: 2 });
  });
  const clock = new FakeClock();
  const tunnel = dial(port, { clock });
  await next(tunnel, 'up');
  for (let number = 0; number < 3; number++) sendRound(tunnel, 2, number, PACKET_BYTES);
  clock.advance(CONNECTION_CHECK_MS);
  await vi.waitFor(() => expect(tunnel.connections).toBe(2));
  return { tunnel, peers, clock };
}

const PACKET_BYTES = 50_000;
