import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { loadSyscalls } from '../../src/device/syscalls.ts';
import { loadTcpControl, TcpControl } from '../../src/device/tcp-control.ts';

describe.skipIf(process.platform !== 'linux')('TcpControl', () => {
  const cleanUp: (() => void)[] = [];
  afterEach(() => {
    for (const step of cleanUp.splice(0)) step();
  });

  /** The second one reads nothing. */
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

  test('leaves with the sender what is above the limit of unsent bytes', async () => {
    const tcp = (await loadTcpControl())!;
    const without = await taken((await pair())[0]);
    const [limited] = await pair();
    tcp.limitUnsent(limited, 64 * 1024);
    expect(await taken(limited)).toBeLessThan(without - 512 * 1024);
  });

  test('raises the limit of unsent bytes again', async () => {
    const tcp = (await loadTcpControl())!;
    const [socket] = await pair();
    tcp.limitUnsent(socket, 64 * 1024);
    const low = await taken(socket);
    tcp.limitUnsent(socket, 1024 * 1024);
    expect(await taken(socket)).toBeGreaterThan(low);
  });

  test('sees everything acknowledged', async () => {
    const tcp = (await loadTcpControl())!;
    const [socket] = await pair();
    const before = tcp.sendProgress(socket)!;
    await new Promise((resolve) => socket.write(Buffer.alloc(5_000), resolve));
    await vi.waitFor(() => expect(tcp.sendProgress(socket)!.done - before.done).toBe(5_000));
    expect(tcp.sendProgress(socket)!.end - before.end).toBe(5_000);
  });

  test('sees less acknowledged than the system has taken while the peer reads nothing', async () => {
    const tcp = (await loadTcpControl())!;
    const [socket] = await pair();
    while (socket.writableLength === 0) socket.write(Buffer.alloc(64 * 1024));
    await vi.waitFor(() => {
      const [first, second] = [tcp.sendProgress(socket)!, tcp.sendProgress(socket)!];
      expect(second.done).toBe(first.done);
      expect(second.end).toBeGreaterThan(second.done + 10_000);
    });
  });

  test('sets both bounds of retransmission, or none where the kernel has none for the wait', async () => {
    const syscalls = await loadSyscalls();
    const tcp = new TcpControl(syscalls);
    const [socket] = await pair();
    const { fd } = (socket as unknown as { _handle: { fd: number } })._handle;
    const read = (option: number): number | undefined => {
      const [value, length] = [Buffer.alloc(4), Buffer.alloc(4)];
      length.writeUInt32LE(4);
      return syscalls.getsockopt(fd, 6, option, value, length) === 0
        ? value.readInt32LE()
        : undefined;
    };
    const isKnown = read(44) !== undefined;
    expect(tcp.boundRetransmission(socket, 1_000, 60_000)).toBe(isKnown);
    expect([read(44), read(18)]).toEqual(isKnown ? [1_000, 60_000] : [undefined, 0]);
  });

  test('changes nothing where the kernel refuses the bound of the wait', async () => {
    const set: number[] = [];
    const old = new TcpControl({
      ...(await loadSyscalls()),
      setsockopt: (_fd, _level, option) => {
        set.push(option);
        return -1;
      },
    });
    const [socket] = await pair();
    expect(old.boundRetransmission(socket, 1_000, 60_000)).toBe(false);
    expect(set).toEqual([44]);
  });

  test('does nothing to a closed connection', async () => {
    const tcp = (await loadTcpControl())!;
    const [socket] = await pair();
    socket.destroy();
    tcp.limitUnsent(socket, 64 * 1024);
    expect(tcp.sendProgress(socket)).toBeUndefined();
    expect(tcp.boundRetransmission(socket, 1_000, 60_000)).toBe(false);
  });
});
