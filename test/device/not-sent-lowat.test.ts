import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadNotSentLowat } from '../../src/device/index.ts';

describe.skipIf(process.platform !== 'linux')(
  'the limit of the unsent bytes of a connection',
  () => {
    const server = createServer((socket) => socket.pause());
    const sockets: Socket[] = [];

    beforeAll(async () => {
      server.listen(0, '127.0.0.1');
      await once(server, 'listening');
    });

    afterAll(() => {
      for (const socket of sockets) socket.destroy();
      server.close();
    });

    async function open(): Promise<Socket> {
      const { port } = server.address() as AddressInfo;
      const socket = connect(port, '127.0.0.1');
      sockets.push(socket);
      await once(socket, 'connect');
      return socket;
    }

    /** Returns the number of bytes that the kernel takes while the peer reads nothing. */
    async function taken(socket: Socket): Promise<number> {
      const piece = Buffer.alloc(16 * 1024);
      for (let quiet = 0, before = 0; quiet < 50; ) {
        while (socket.writableLength === 0) socket.write(piece);
        await new Promise(setImmediate);
        const now = socket.bytesWritten - socket.writableLength;
        quiet = now === before ? quiet + 1 : 0;
        before = now;
      }
      return socket.bytesWritten - socket.writableLength;
    }

    test('leaves the rest with the sender', async () => {
      const limit = (await loadNotSentLowat())!;
      const without = await taken(await open());
      const limited = await open();
      limit(limited, 64 * 1024);
      expect(await taken(limited)).toBeLessThan(without - 512 * 1024);
    });

    test('can be raised again', async () => {
      const limit = (await loadNotSentLowat())!;
      const socket = await open();
      limit(socket, 64 * 1024);
      const low = await taken(socket);
      limit(socket, 1024 * 1024);
      expect(await taken(socket)).toBeGreaterThan(low);
    });

    test('does nothing to a closed connection', async () => {
      const limit = (await loadNotSentLowat())!;
      const socket = await open();
      socket.destroy();
      expect(() => limit(socket, 64 * 1024)).not.toThrow();
    });
  }
);
