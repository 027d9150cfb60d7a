/** Which groups the key exchange of a tunnel may use, and what each side says about the one that was used. */
import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import { createSecureContext } from 'node:tls';
import { describe, expect, test, vi } from 'vitest';
import { FrameType, type MtlsTunnel } from '../../src/tunnel/index.ts';
import { HELLO, RawPeer, WELCOME } from '../support/raw-peer.ts';
import { cloud, dial, listen, next, pair, serve, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

const isKnown = (group: string): boolean => {
  try {
    createSecureContext({ ecdhCurve: group });
    return true;
  } catch {
    return false;
  }
};
/** OpenSSL has it from version 3.5 on. */
const isPostQuantum = isKnown('X25519MLKEM768');
/** These tests are not there for a Node whose OpenSSL has no such group. */
const testPostQuantum = (name: string, run: () => Promise<void>): void => {
  if (isPostQuantum) test(name, run);
};
const BEST = isPostQuantum ? 'X25519MLKEM768' : 'X25519';
const REFUSED = ['P-384', 'P-521', 'X448', 'ffdhe2048', 'ffdhe3072'].filter(isKnown);

describe('the key exchange of a tunnel', () => {
  test('uses the best group that both sides have, and both say which', async () => {
    const [dialled, accepted] = await pair();
    expect(dialled.info?.keyExchange).toBe(BEST);
    expect(accepted.info?.keyExchange).toBe(BEST);
  });

  test('is reported again for the connection that replaces the primary one', async () => {
    const [dialled, accepted] = await pair();
    const renewed = next(accepted, 'renewed');
    await dialled.updateCredentials(siteA);
    expect((await renewed)[0].keyExchange).toBe(BEST);
    expect(dialled.info?.keyExchange).toBe(BEST);
  });
});

describe('a listener', () => {
  async function accept(hello: object, groups?: string): Promise<[RawPeer, MtlsTunnel]> {
    const listener = await listen();
    const up = new Promise<MtlsTunnel>((resolve) => listener.once('tunnel', resolve));
    const peer = RawPeer.dial(
      listener.port,
      siteA,
      groups === undefined ? {} : { ecdhCurve: groups }
    );
    peer.send(FrameType.Hello, hello);
    return [peer, await up];
  }

  test.each([
    ['X25519', 'X25519'],
    ['P-256', 'prime256v1'],
  ])('serves a peer that has %s only', async (group, name) => {
    const [peer, accepted] = await accept({ ...HELLO, keyExchange: group }, group);
    expect(peer.socket.getEphemeralKeyInfo()).toMatchObject({ name });
    expect(accepted.info?.keyExchange).toBe(group);
  });

  testPostQuantum('prefers the post-quantum group to what a peer has begun with', async () => {
    const [peer] = await accept(HELLO, '*X25519:X25519MLKEM768');
    expect(peer.socket.getEphemeralKeyInfo()).not.toMatchObject({ name: 'X25519' });
  });

  test.each([
    ['nothing', {}],
    ['a group that it does not serve', { keyExchange: 'ffdhe2048' }],
    ['no text', { keyExchange: 7 }],
  ])('does not know the group of a peer that says %s', async (_, said) => {
    const [, accepted] = await accept({ ...HELLO, ...said });
    expect(accepted.info?.keyExchange).toBeUndefined();
  });

  test.each(REFUSED)('refuses a peer that has %s only, and counts it', async (group) => {
    const listener = await listen();
    const refused = async (): Promise<void> => {
      const peer = RawPeer.dial(listener.port, siteA, { ecdhCurve: group });
      await peer.closed;
      expect(peer.error?.code).toMatch(/^ERR_SSL_.*HANDSHAKE_FAILURE$/);
    };
    await refused();
    // Node forgets the groups of a server that gets other credentials, unless they come with those.
    listener.updateCredentials(cloud);
    await refused();
    await vi.waitFor(
      () =>
        expect(Object.fromEntries(listener.counters.failed)).toEqual({
          ERR_SSL_NO_SUITABLE_KEY_SHARE: 2,
        }),
      PATIENCE
    );
  });
});

describe('a tunnel that dials', () => {
  test.each(['X25519', 'P-256'])(
    'is served by a peer that has %s only, and says so',
    async (group) => {
      let hello: Promise<Record<string, unknown> | undefined> | undefined;
      const port = await serve(
        (peer) => {
          hello = peer.json(FrameType.Hello);
          peer.send(FrameType.Welcome, WELCOME);
        },
        cloud,
        { ecdhCurve: group }
      );
      const [info] = await next(dial(port), 'up');
      expect(info.keyExchange).toBe(group);
      expect(await hello).toMatchObject({ keyExchange: group });
    }
  );

  test.each(REFUSED)('does not come up at a peer that has %s only', async (group) => {
    const port = await serve((peer) => peer.send(FrameType.Welcome, WELCOME), cloud, {
      ecdhCurve: group,
    });
    const tunnel = dial(port);
    const up = vi.fn();
    tunnel.on('up', up);
    const [{ cause }] = await next(tunnel, 'waiting');
    expect(cause.reason).toMatch(/handshake failure/i);
    expect(up).not.toHaveBeenCalled();
  });

  testPostQuantum('needs no second round trip at a peer that is not post-quantum', async () => {
    const port = await serve(() => {}, cloud, { ecdhCurve: 'X25519' });
    const fromServer: Buffer[] = [];
    const relay = createServer((socket) => {
      const onward = connect(port, '127.0.0.1');
      onward.on('data', (chunk) => fromServer.push(chunk));
      socket.pipe(onward).pipe(socket);
      for (const each of [socket, onward]) each.on('error', () => {});
    });
    await once(relay.listen(0, '127.0.0.1'), 'listening');
    try {
      const tunnel = dial((relay.address() as { port: number }).port);
      await vi.waitFor(() => expect(fromServer.length).toBeGreaterThan(0), PATIENCE);
      tunnel.destroy();
      const bytes = Buffer.concat(fromServer);
      expect(bytes.includes(HELLO_RETRY_RANDOM)).toBe(false);
    } finally {
      relay.close();
    }
  });
});

/** The longest wait on a busy machine. */
const PATIENCE = { timeout: 20_000 };
/** The `random` by which a ServerHello asks for another key share (RFC 8446 section 4.1.3). */
const HELLO_RETRY_RANDOM: Buffer = Buffer.from(
  'cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c',
  'hex'
);
