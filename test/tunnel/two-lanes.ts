import { expect, vi } from 'vitest';
import { FrameType, type MtlsTunnel } from '../../src/tunnel/index.ts';
import { LANE_CHECK_MS } from '../../src/tunnel/lane-demand.ts';
import { FakeClock } from '../fake-clock.ts';
import { sendRound } from './packets.ts';
import { type RawPeer, WELCOME } from './raw-peer.ts';
import { dial, next, serve } from './scene.ts';

/**
 * A tunnel to a raw peer whose two lanes are up. Packets 0 to 2 of two flows have gone over the first
 * one, so that both flows are known, and the new lane takes one.
 */
export async function twoLanes(): Promise<{
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
  clock.advance(LANE_CHECK_MS);
  await vi.waitFor(() => expect(tunnel.lanes).toBe(2));
  return { tunnel, peers, clock };
}

const PACKET_BYTES = 50_000;
