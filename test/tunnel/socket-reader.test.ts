import { once } from 'node:events';
import { connect, type TLSSocket } from 'node:tls';
import { describe, expect, test } from 'vitest';
import { type Reader, readInto } from '../../src/tunnel/socket-reader.ts';
import { cleanUp, serve, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

/** Both ends of a connection. */
async function connection(): Promise<{ client: TLSSocket; server: TLSSocket }> {
  let server: TLSSocket | undefined;
  const port = await serve((peer) => {
    server = peer.socket;
    // It is ours to read.
    server.removeAllListeners('data');
  });
  const client = connect({
    port,
    host: '127.0.0.1',
    ...siteA,
    ALPNProtocols: ['virtual-presence/1'],
    checkServerIdentity: () => undefined,
  });
  cleanUp.push(() => client.destroy());
  await once(client, 'secureConnect');
  while (server === undefined) await new Promise(setImmediate);
  return { client, server };
}

class Collector implements Reader {
  readonly #memory = Buffer.alloc(5_000);
  readonly #pieces: Buffer[] = [];
  filled = 0;
  pieces = 0;

  /** Small, and another one each time. */
  get space(): Buffer {
    return this.#memory.subarray(this.filled % 1_000);
  }

  onFilled(count: number): void {
    this.#pieces.push(Buffer.from(this.space.subarray(0, count)));
    this.filled++;
  }

  onPiece(piece: Buffer): void {
    this.#pieces.push(piece);
    this.pieces++;
  }

  get bytes(): Buffer {
    return Buffer.concat(this.#pieces);
  }
}

const sent = Buffer.from(Array.from({ length: 100_000 }, (_, i) => (i * 7 + (i >> 8)) & 0xff));

describe('readInto', () => {
  test.each(['client', 'server'] as const)('reads straight into the space of a %s', async (end) => {
    const ends = await connection();
    const socket = ends[end];
    const collector = new Collector();
    expect(readInto(socket, collector)).toBe(true);
    ends[end === 'client' ? 'server' : 'client'].end(sent);
    await once(socket, 'end');
    expect(collector.bytes.equals(sent)).toBe(true);
    expect(collector.pieces).toBe(0);
    expect(collector.filled).toBeGreaterThan(19);
  });

  test.each<[string, (socket: TLSSocket) => void]>([
    [
      'the parts are not as they ought to be',
      (socket) => {
        const part = Object.getOwnPropertySymbols(socket).find(
          ({ description }) => description === 'kBufferGen'
        )!;
        Object.assign(socket, { [part]: undefined });
      },
    ],
    [
      'something has been read before',
      (socket) => {
        socket.unshift(sent.subarray(0, 10));
      },
    ],
  ])('takes pieces where %s', async (_, prepare) => {
    const { client, server } = await connection();
    const before = client.readableLength;
    prepare(client);
    const early = client.readableLength - before;
    const collector = new Collector();
    expect(readInto(client, collector)).toBe(false);
    server.end(sent.subarray(early));
    await once(client, 'end');
    expect(collector.bytes.equals(sent)).toBe(true);
    expect(collector.filled).toBe(0);
  });
});
