import { describe, expect, test } from 'vitest';
import { fastestCiphers } from '../../src/tunnel/tls-profile.ts';
import { RawPeer } from '../support/raw-peer.ts';
import { dial, listen, next, pair, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

const ALL = ['TLS_AES_128_GCM_SHA256', 'TLS_AES_256_GCM_SHA384', 'TLS_CHACHA20_POLY1305_SHA256'];

describe('fastestCiphers', () => {
  test('names all cipher suites of TLS 1.3, in one order for the whole process', () => {
    expect(fastestCiphers().split(':').sort()).toEqual(ALL);
    expect(fastestCiphers()).toBe(fastestCiphers());
  });

  test('a tunnel takes the first one', async () => {
    const [dialled, accepted] = await pair();
    const [first] = fastestCiphers().split(':');
    expect([dialled.info?.cipher, accepted.info.cipher]).toEqual([first, first]);
  });

  test.each(ALL)('a peer that has %s only is served', async (cipher) => {
    const listener = await listen();
    const peer = RawPeer.dial(listener.port, siteA, { ciphers: cipher, minVersion: 'TLSv1.3' });
    await new Promise((resolve) => peer.socket.once('secureConnect', resolve));
    expect(peer.socket.getCipher().name).toBe(cipher);
    const tunnel = dial(listener.port);
    await next(tunnel, 'up');
  });
});
