/**
 * A time-boxed exposure ends on time at the cloud, whether the edge is connected or not, and its packets stop. The wall
 * clock of the cloud decides, also when it jumps.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { udpFrame, VNET_HEADER_LENGTH } from '../../src/packet/index.ts';
import { JumpingClock } from '../support/jumping-clock.ts';
import { desired, Gateways, Hosts, memory } from './scene.ts';

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;
const PATIENCE = { signal: AbortSignal.timeout(600_000) };
const EXPOSURE = { service: 'bus', site: 'site-a' };

const gateways = new Gateways();
let clock: JumpingClock;
let cloud: CloudGateway;
let edge: EdgeGateway;
/** What came to the service. */
let served: string[];
/** The host of the site. */
let hosts: Hosts;
let state: ReturnType<typeof memory>;

beforeEach(async () => {
  clock = new JumpingClock();
  served = [];
  state = memory();
  const service = new Hosts();
  service.serve(({ payload }) => {
    served.push(Buffer.from(payload).toString());
    return `echo ${Buffer.from(payload)}`;
  });
  const notAfter = new Date(clock.wallMs() + HOUR_MS).toISOString();
  cloud = await gateways.cloud({
    clock,
    desired: { ...desired('site-a'), exposures: [{ ...EXPOSURE, notAfter }] },
    device: service.device,
  });
  hosts = new Hosts();
  const token = await cloud.createToken({ site: 'site-a' });
  edge = await gateways.edge({ token, ...state, device: hosts.device });
  await edge.ready(PATIENCE);
});

afterEach(() => gateways.close());

/** Returns what the cloud would do with a packet of the site to the presence. */
async function stepOf(address: string): Promise<string | undefined> {
  const ends = { source: '10.0.0.5', sourcePort: 40_000, destination: address };
  const frame = udpFrame({ ...ends, destinationPort: 7, payload: Buffer.from('x') });
  const packet = frame.subarray(VNET_HEADER_LENGTH);
  return (await cloud.explain({ from: { site: 'site-a' }, packet })).step;
}

const presence = (): string => String(edge.lookup('bus')[0]!.addresses[0]);

/** Expects that nothing of the exposure is left at the cloud, and that it refuses a packet. */
async function expectEnded(address: string): Promise<void> {
  await vi.waitFor(async () => {
    expect(await cloud.paths()).toEqual([]);
    expect(await stepOf(address)).toBe('destination');
  });
}

describe('a time-boxed exposure', () => {
  test('ends for a connected edge, and its packets stop', async () => {
    const address = presence();
    expect(await hosts.request(address, 'one')).toBe('echo one');
    clock.jump(HOUR_MS - 2 * MINUTE_MS);
    expect(await hosts.request(address, 'two')).toBe('echo two');
    expect(await cloud.paths()).not.toEqual([]);

    clock.jump(2 * MINUTE_MS);
    await expectEnded(address);
    hosts.send({ ...ENDS, destination: address, payload: Buffer.from('late') });
    await vi.waitFor(() => expect(edge.lookup('bus')).toEqual([]));
    hosts.send({ ...ENDS, destination: address, payload: Buffer.from('later') });
    expect(new Set(served)).toEqual(new Set(['one', 'two']));
  });

  test('ends while the edge is away, which learns it when it is back', async () => {
    const address = presence();
    await edge.close();
    expect(await stepOf(address)).not.toBe('destination');
    clock.jump(HOUR_MS);
    await expectEnded(address);
    edge = await gateways.edge({ ...state, device: new Hosts().device });
    await edge.ready(PATIENCE);
    await vi.waitFor(() => expect(edge.lookup('bus')).toEqual([]));
  });

  test('follows a wall clock that jumps, as after a sleep of the machine, both ways', async () => {
    const address = presence();
    clock.jumpWall(-24 * HOUR_MS);
    clock.jump(2 * HOUR_MS);
    expect(await hosts.request(address, 'one')).toBe('echo one');
    clock.jumpWall(48 * HOUR_MS);
    await expectEnded(address);
    await vi.waitFor(() => expect(edge.lookup('bus')).toEqual([]));
    // Somebody had set it wrong: the box is open again, at the same address.
    clock.jumpWall(-48 * HOUR_MS);
    await vi.waitFor(() => expect(edge.lookup('bus')).toHaveLength(1));
    expect(presence()).toBe(address);
    expect(await hosts.request(address, 'two')).toBe('echo two');
  });
});

const ENDS = { source: '10.0.0.5', sourcePort: 40_000, destinationPort: 7 };
