import { describe, expect, test, vi } from 'vitest';
import { CloseCode, FrameType, type TunnelRefusal } from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { RawPeer } from '../support/raw-peer.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { Relay } from '../support/relay.ts';
import { cleanUp, dial, listen, next, serve, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

const moved = (port: number, host?: string): TunnelRefusal => ({
  code: CloseCode.Moved,
  reason: 'the site is held elsewhere',
  endpoint: host === undefined ? { port } : { host, port },
});

describe('a site that is held elsewhere', () => {
  test('is found there at once, without a wait', async () => {
    const there = await listen();
    const here = await listen({ authorize: () => moved(there.port) });
    const clock = new FakeClock();
    const tunnel = dial(here.port, { clock });
    const refused = vi.fn();
    tunnel.on('refused', refused);
    expect((await next(tunnel, 'waiting'))[0].delayMs).toBe(0);
    clock.advance(0);
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(there.port);
    expect(refused).not.toHaveBeenCalled();
    expect(here.counters.refused.get(CloseCode.Moved)).toBe(1);
  });

  test('may be at another host', async () => {
    const there = await listen({ host: '127.0.0.2' });
    const here = await listen({ authorize: () => moved(there.port, '127.0.0.2') });
    const tunnel = dial(here.port);
    await next(tunnel, 'up');
    expect(tunnel.info?.remoteAddress).toBe('127.0.0.2');
  });

  test('is followed when it moves while its tunnel is up', async () => {
    const [here, there] = [await listen(), await listen()];
    const tunnel = dial(here.port);
    await next(tunnel, 'up');
    const [accepted] = here.tunnels;
    const down = next(tunnel, 'down');
    void accepted!.close({
      code: CloseCode.Moved,
      reason: 'elsewhere',
      endpoint: { port: there.port },
    });
    expect((await down)[0]).toMatchObject({
      code: CloseCode.Moved,
      endpoint: { port: there.port },
    });
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(there.port);
  });

  test('is dialled at its own endpoints again when nobody is there', async () => {
    const here = await listen();
    const nobody = await refusingTcpPort();
    cleanUp.push(() => nobody.close());
    const tunnel = dial(here.port, { backoff: { minMs: 1, maxMs: 2 } });
    await next(tunnel, 'up');
    void [...here.tunnels][0]!.close({
      code: CloseCode.Moved,
      reason: 'elsewhere',
      endpoint: { port: nobody.port },
    });
    await next(tunnel, 'down');
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(here.port);
  });

  test('is not redirected for ever by gateways that do not agree', async () => {
    const ports: number[] = [];
    let count = 0;
    const send = (peer: RawPeer): void => {
      count++;
      peer.send(FrameType.Close, moved(ports[count % 2]!));
    };
    ports.push(await serve(send), await serve(send));
    const clock = new FakeClock();
    const tunnel = dial(ports[0]!, { clock });
    const waits: number[] = [];
    tunnel.on('waiting', ({ delayMs }) => {
      waits.push(delayMs);
      if (delayMs === 0) clock.advance(0);
    });
    await vi.waitFor(() => expect(waits.at(-1)).toBeGreaterThan(0));
    expect(waits).toEqual([0, 0, 0, 0, 30_000]);
  });

  test('is followed again after any number of failures at the endpoint that was named', async () => {
    const there = await Relay.open();
    cleanUp.push(() => there.close());
    let refused = 0;
    const here = await listen({
      authorize: () => {
        refused++;
        return moved(there.port);
      },
    });
    const tunnel = dial(here.port, { backoff: { minMs: 1, maxMs: 2 } });
    await vi.waitFor(() => expect(refused).toBeGreaterThan(12));
    there.target = (await listen()).port;
    await next(tunnel, 'up');
    expect(tunnel.info?.remotePort).toBe(there.port);
  });

  test.each<[string, object]>([
    ['no endpoint', {}],
    ['a port that is none', { endpoint: { port: 70_000 } }],
    ['a host of more than a name', { endpoint: { host: 'a b', port: 1 } }],
  ])('is not followed by a CLOSE with %s', async (_, members) => {
    const port = await serve((peer) => {
      peer.send(FrameType.Close, { code: CloseCode.Moved, reason: 'x', ...members });
    });
    const tunnel = dial(port, { clock: new FakeClock() });
    expect((await next(tunnel, 'waiting'))[0].delayMs).toBeGreaterThan(0);
  });

  test('is redirected by a listener before it has read anything', async () => {
    const here = await listen({ authorize: () => moved(1234) });
    const peer = RawPeer.dial(here.port, siteA);
    expect(await peer.json(FrameType.Close)).toEqual(moved(1234));
  });
});
