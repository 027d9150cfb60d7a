import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { loadSendProgress } from '../../src/device/index.ts';

describe.skipIf(process.platform !== 'linux')('the progress of what a connection sends', () => {
  const cleanUp: (() => void)[] = [];
  afterEach(() => {
    for (const step of cleanUp.splice(0)) step();
  });

  async function pair(): Promise<[Socket, Socket]> {
    const server = createServer((socket) => socket.pause()).listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const socket = connect(port, '127.0.0.1');
    const [[peer]] = (await Promise.all([once(server, 'connection'), once(socket, 'connect')])) as [
      [Socket],
      unknown,
    ];
    cleanUp.push(() => {
      socket.destroy();
      peer.destroy();
      server.close();
    });
    return [socket, peer];
  }

  test('ends where everything is acknowledged', async () => {
    const progress = (await loadSendProgress())!;
    const [socket] = await pair();
    const before = progress(socket)!;
    await new Promise((resolve) => socket.write(Buffer.alloc(5_000), resolve));
    await vi.waitFor(() => expect(progress(socket)!.done - before.done).toBe(5_000));
    expect(progress(socket)!.end - before.end).toBe(5_000);
  });

  test('stays behind what the system has taken while the peer reads nothing', async () => {
    const progress = (await loadSendProgress())!;
    const [socket] = await pair();
    while (socket.writableLength === 0) socket.write(Buffer.alloc(64 * 1024));
    await vi.waitFor(() => {
      const [first, second] = [progress(socket)!, progress(socket)!];
      expect(second.done).toBe(first.done);
      expect(second.end).toBeGreaterThan(second.done + 10_000);
    });
  });

  test('is not known of a closed connection', async () => {
    const progress = (await loadSendProgress())!;
    const [socket] = await pair();
    socket.destroy();
    expect(progress(socket)).toBeUndefined();
  });
});
