import { AsyncLocalStorage } from 'node:async_hooks';
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { PresenceDatagramSocket } from '../../../src/sockets/udp/datagram.ts';
import { counting } from '../../support/bytes.ts';
import { type DatagramHost, DatagramNetwork } from './datagram-host.ts';

type AnySocket = Socket | PresenceDatagramSocket;
type Options = ConstructorParameters<typeof PresenceDatagramSocket>[1];

let network: DatagramNetwork;
let hosts: readonly [DatagramHost, DatagramHost];
const opened: AnySocket[] = [];

beforeEach(() => {
  network = new DatagramNetwork();
  hosts = [network.host(1), network.host(2)];
});

afterEach(async () => {
  for (const socket of opened.splice(0)) await (socket as AsyncDisposable)[Symbol.asyncDispose]();
});

function track<T extends AnySocket>(socket: T): T {
  opened.push(socket);
  return socket;
}

function presence(n: 1 | 2, options: Options = 'udp4'): PresenceDatagramSocket {
  return track(new PresenceDatagramSocket(hosts[n - 1]!, options));
}

/** Binds the socket and returns its port. */
async function bound(socket: AnySocket): Promise<number> {
  (socket as Socket).bind(0);
  await once(socket, 'listening');
  return socket.address().port;
}

async function nextMessage(socket: AnySocket): Promise<[Buffer, RemoteInfo]> {
  return (await once(socket, 'message')) as [Buffer, RemoteInfo];
}

/** What `send` calls back with. */
function sent(socket: AnySocket, ...args: unknown[]): Promise<[Error | null, number]> {
  return new Promise((resolve) => {
    const send = (socket as unknown as { send(...args: unknown[]): void }).send;
    send.call(socket, ...args, (error: Error | null, bytes: number) => resolve([error, bytes]));
  });
}

function thrown(call: () => unknown): { name: string; code: unknown; message: string } {
  try {
    call();
  } catch (error) {
    const { name, code, message } = error as NodeJS.ErrnoException;
    return { name, code, message: message.split('. Received')[0]! };
  }
  throw new Error('nothing was thrown');
}

/** The same expectations of Node's own sockets and of ours. */
const KINDS = [
  ['dgram', () => track(createSocket('udp4')), '127.0.0.1', () => '127.0.0.1'],
  ['a presence', (n: 1 | 2) => presence(n), '10.0.0.2', (n: 1 | 2) => `10.0.0.${n}`],
] as const;

describe.each(KINDS)('%s', (_, make, peer, addressOf) => {
  test('messages arrive with their sender', async () => {
    const [a, b] = [make(1) as Socket, make(2) as Socket];
    const port = await bound(b);
    const arrived = nextMessage(b);
    a.send('hello', port, peer);
    const [message, from] = await arrived;
    expect(message.toString()).toBe('hello');
    const { port: ownPort, ...rest } = a.address();
    expect(rest).toEqual({ address: '0.0.0.0', family: 'IPv4' });
    expect(from).toEqual({ address: addressOf(1), family: 'IPv4', port: ownPort, size: 5 });
  });

  test('send takes all its forms, and calls back with the count of bytes', async () => {
    const [a, b] = [make(1), make(2)];
    const port = await bound(b);
    const messages: string[] = [];
    const all = new Promise<void>((resolve) => {
      (b as Socket).on('message', (message) => {
        if (messages.push(message.toString()) === 8) resolve();
      });
    });
    const results = [
      await sent(a, 'text', port, peer),
      await sent(a, Buffer.from('bytes'), port, peer),
      await sent(a, new DataView(Buffer.from('view').buffer, 0, 0), port, peer),
      await sent(a, Buffer.from('0123456789'), 2, 3, port, peer),
      await sent(a, '0123456789', 4, 2, port, peer),
      await sent(a, ['a', Buffer.from('b'), new Uint16Array([0x4343])], port, peer),
      await sent(a, [], port, peer),
      await sent(a, '', port, peer),
    ];
    await all;
    expect(messages).toEqual(['text', 'bytes', '', '234', '45', 'abCC', '', '']);
    expect(results).toEqual(messages.map((message) => [null, message.length]));
  });

  test('a connected socket sends to its peer and hears nobody else', async () => {
    const [a, b, c] = [make(1) as Socket, make(2) as Socket, make(1) as Socket];
    const port = await bound(b);
    const connected = vi.fn();
    a.connect(port, peer, connected);
    await once(a, 'connect');
    expect(connected).toHaveBeenCalledTimes(1);
    expect(a.remoteAddress()).toEqual({ address: peer, family: 'IPv4', port });
    expect(a.address().address).toBe(addressOf(1));
    const arrived = nextMessage(b);
    expect(await sent(a, 'one')).toEqual([null, 3]);
    const [, from] = await arrived;
    expect(from.port).toBe(a.address().port);

    const heard: string[] = [];
    a.on('message', (message) => heard.push(message.toString()));
    await sent(c, 'stranger', from.port, addressOf(1));
    const answered = nextMessage(a);
    await sent(b, 'answer', from.port, addressOf(1));
    await answered;
    expect(heard).toEqual(['answer']);

    const second = nextMessage(b);
    expect(await sent(a, Buffer.from('slices'), 1, 2)).toEqual([null, 2]);
    expect((await second)[0].toString()).toBe('li');
    a.disconnect();
    expect(thrown(() => a.remoteAddress()).code).toBe('ERR_SOCKET_DGRAM_NOT_CONNECTED');
    const third = nextMessage(b);
    await sent(a, 'free', port, peer);
    expect((await third)[0].toString()).toBe('free');
  });

  test('a port where nobody is refuses a connected socket', async () => {
    const [a, b, c] = [make(1) as Socket, make(2) as Socket, make(1) as Socket];
    // Nobody else can take the port, and it is open for another socket alone.
    const port = await bound(b);
    b.connect(await bound(c), addressOf(1));
    await once(b, 'connect');
    a.connect(port, peer);
    await once(a, 'connect');
    const failed = once(a, 'error');
    a.send('anybody?');
    const [error] = (await failed) as [NodeJS.ErrnoException];
    expect(error).toMatchObject({ code: 'ECONNREFUSED', syscall: 'recvmsg' });
    expect(error.errno).toBeLessThan(0);
  });

  test('binding twice, to a port that is taken, and with wrong arguments fails', async () => {
    const [a, b] = [make(1) as Socket, make(1) as Socket];
    const port = await bound(a);
    expect(thrown(() => a.bind(0))).toEqual({
      name: 'Error',
      code: 'ERR_SOCKET_ALREADY_BOUND',
      message: 'Socket is already bound',
    });
    const failed = once(b, 'error');
    const listening = vi.fn();
    b.bind(port, listening);
    const [error] = (await failed) as [NodeJS.ErrnoException];
    expect(error).toMatchObject({ code: 'EADDRINUSE', syscall: 'bind', port, address: '0.0.0.0' });
    expect(listening).not.toHaveBeenCalled();
    // It can be tried again.
    b.bind({ port: 0 }, listening);
    await once(b, 'listening');
    expect(listening).toHaveBeenCalledTimes(1);
  });

  test('calls on a socket that is closed, not bound or not connected throw', async () => {
    const a = make(1) as Socket;
    expect(thrown(() => a.address())).toMatchObject({ code: 'EBADF' });
    expect(thrown(() => a.remoteAddress()).code).toBe('ERR_SOCKET_DGRAM_NOT_CONNECTED');
    expect(thrown(() => a.disconnect()).message).toBe('Not connected');
    const closed = vi.fn();
    expect(a.close(closed)).toBe(a);
    await once(a, 'close');
    opened.length = 0;
    expect(closed).toHaveBeenCalledTimes(1);
    const calls = [
      () => a.close(),
      () => a.bind(0),
      () => a.send('x', 1000, peer),
      () => a.address(),
    ];
    for (const call of calls) {
      expect(thrown(call)).toMatchObject({
        code: 'ERR_SOCKET_DGRAM_NOT_RUNNING',
        message: 'Not running',
      });
    }
  });

  test('wrong arguments throw Node’s errors', async () => {
    const a = make(1);
    const send = (...args: unknown[]): { name: string; code: unknown } => {
      const { name, code } = thrown(() =>
        (a as unknown as { send(...args: unknown[]): void }).send(...args)
      );
      return { name, code };
    };
    const port = { name: 'RangeError', code: 'ERR_SOCKET_BAD_PORT' };
    const type = { name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' };
    const bounds = { name: 'RangeError', code: 'ERR_BUFFER_OUT_OF_BOUNDS' };
    for (const wrong of [0, 65_536, -1, 'http', '', undefined, null, {}]) {
      expect(send('x', wrong), String(wrong)).toEqual(port);
    }
    expect(send(1, 1000)).toEqual(type);
    expect(send([1], 1000)).toEqual(type);
    expect(send('x', 1000, 5)).toEqual(type);
    expect(send(Buffer.alloc(3), 4, 1, 1000)).toEqual(bounds);
    expect(send(Buffer.alloc(3), 1, 3, 1000)).toEqual(bounds);
    expect(thrown(() => (a as Socket).connect(0)).code).toBe('ERR_SOCKET_BAD_PORT');
    const connecting = (): void => (a as Socket).connect(1000, peer);
    connecting();
    expect(thrown(connecting)).toEqual({
      name: 'Error',
      code: 'ERR_SOCKET_DGRAM_IS_CONNECTED',
      message: 'Already connected',
    });
    await once(a, 'connect');
    expect(send('x', 0, 1, 1000).code).toBe('ERR_SOCKET_DGRAM_IS_CONNECTED');
    expect(send('x', 0, 1, undefined, peer).code).toBe('ERR_SOCKET_DGRAM_IS_CONNECTED');
  });

  test('a datagram that is too long fails in the callback', async () => {
    const a = make(1);
    const [error] = await sent(a, Buffer.alloc(65_508), 9, peer);
    expect(error).toMatchObject({ code: 'EMSGSIZE', syscall: 'send', address: peer, port: 9 });
  });

  test('the callbacks of one socket come in order, and none within send', async () => {
    const [a, b] = [make(1) as Socket, make(2)];
    const port = await bound(b);
    await bound(a);
    const order: number[] = [];
    await new Promise<void>((resolve) => {
      for (let i = 0; i < 5; i++) {
        a.send('x', port, peer, () => {
          order.push(i);
          if (i === 4) resolve();
        });
        expect(order).toEqual([]);
      }
    });
    expect(order).toEqual([0, 1, 2, 3, 4]);
    expect(a.getSendQueueSize()).toBe(0);
    expect(a.getSendQueueCount()).toBe(0);
  });

  test('what a connected socket has sent arrives though it is closed at once', async () => {
    const [a, b] = [make(1) as Socket, make(2)];
    const port = await bound(b);
    a.connect(port, peer);
    await once(a, 'connect');
    const arrived = nextMessage(b);
    const callback = sent(a, 'last words');
    a.close();
    opened.splice(opened.indexOf(a), 1);
    expect((await arrived)[0].toString()).toBe('last words');
    expect(await callback).toEqual([null, 10]);
  });

  test('the listener of messages runs in the context in which the socket was made', async () => {
    const storage = new AsyncLocalStorage<string>();
    const [a, b] = [make(1), storage.run('made', () => make(2))];
    const seen: (string | undefined)[] = [];
    const port = await storage.run('bound', () => bound(b));
    const arrived = nextMessage(b);
    (b as Socket).on('message', () => seen.push(storage.getStore()));
    const callback = storage.run(
      'sent',
      () =>
        new Promise<void>((resolve) => {
          (a as Socket).send('x', port, peer, () => {
            seen.push(storage.getStore());
            resolve();
          });
        })
    );
    await Promise.all([arrived, callback]);
    expect(seen.sort()).toEqual(['made', 'sent']);
  });
});

test.each([
  ['dgram', (type: never, more: object = {}) => track(createSocket({ type, ...more }))],
  ['a presence', (type: never, more: object = {}) => presence(1, { type, ...more })],
])('%s refuses wrong options, and is closed by a signal', async (_, make) => {
  expect(thrown(() => make('tcp4' as never))).toEqual({
    name: 'TypeError',
    code: 'ERR_SOCKET_BAD_TYPE',
    message: 'Bad socket type specified. Valid types are: udp4, udp6',
  });
  const udp4 = 'udp4' as never;
  expect(thrown(() => make(udp4, { lookup: 1 })).code).toBe('ERR_INVALID_ARG_TYPE');
  expect(thrown(() => make(udp4, { signal: 1 })).code).toBe('ERR_INVALID_ARG_TYPE');
  expect(thrown(() => make(udp4, { recvBufferSize: 'x' })).code).toBe('ERR_INVALID_ARG_TYPE');
  opened.length = 0;
  const controller = new AbortController();
  const socket = make(udp4, { signal: controller.signal });
  const closed = once(socket, 'close');
  controller.abort();
  await closed;
  const late = make(udp4, { signal: controller.signal });
  await once(late, 'close');
  opened.length = 0;
});

describe('a presence', () => {
  /** They are in later versions of Node than the first that is supported. */
  const later = ['bindSync', 'connectSync'];

  test('has the methods of dgram.Socket', () => {
    const own = createSocket('udp4');
    own.close();
    const missing = Object.getOwnPropertyNames(Object.getPrototypeOf(own))
      .filter((name) => !name.startsWith('_') && name !== 'sendto')
      .filter((name) => !later.includes(name))
      .filter((name) => !(name in PresenceDatagramSocket.prototype));
    expect(missing).toEqual([]);
  });

  test('can be given to a program that expects a dgram.Socket', async () => {
    const socket: Socket = presence(1);
    socket.on('message', (message, from) => message.toString() + from.address);
    socket.bind(() => socket.close());
    await once(socket, 'close');
    opened.length = 0;
  });

  test('refuses what has no meaning', () => {
    const socket = presence(1);
    for (const call of [
      () => socket.setTTL(1),
      () => socket.setBroadcast(true),
      () => socket.addMembership('224.0.0.1'),
      () => socket.setMulticastTTL(1),
    ]) {
      expect(thrown(call).code).toBe('ENOTSUP');
    }
    expect(socket.ref().unref()).toBe(socket);
  });

  test('speaks IPv6, and cuts long datagrams', async () => {
    const [a, b] = [presence(1, 'udp6'), presence(2, 'udp6')];
    const port = await bound(b);
    expect(b.address()).toEqual({ address: '::', family: 'IPv6', port });
    for (const length of [3, 60_000]) {
      const arrived = nextMessage(b);
      expect(await sent(a, counting(length), port, 'fd00::2')).toEqual([null, length]);
      const [message, from] = await arrived;
      expect(message.equals(counting(length))).toBe(true);
      expect(from).toMatchObject({ address: 'fd00::1', family: 'IPv6' });
    }
    const [error] = await sent(a, 'x', port, '10.0.0.2');
    expect(error).toMatchObject({ code: 'EINVAL' });
  });

  test('finds names in the zone, or by a function of the program', async () => {
    const [a, b] = [presence(1), presence(2)];
    const port = await bound(b);
    const arrived = nextMessage(b);
    expect(await sent(a, 'x', port, '2.test')).toEqual([null, 1]);
    await arrived;
    const [error] = await sent(a, 'x', port, 'nobody.test');
    expect(error).toMatchObject({ code: 'ENOTFOUND', hostname: 'nobody.test' });
    const failed = once(a, 'error');
    a.send('x', port, 'nobody.test');
    expect((await failed)[0]).toMatchObject({ code: 'ENOTFOUND' });

    const lookup = vi.fn((_name, _family, callback) =>
      process.nextTick(callback, null, '10.0.0.2', 4)
    );
    const c = presence(1, { type: 'udp4', lookup });
    const second = nextMessage(b);
    expect(await sent(c, 'y', port, 'anything')).toEqual([null, 1]);
    await second;
    expect(lookup).toHaveBeenCalledWith('anything', 4, expect.any(Function));
  });

  test('fails if the lookup function of the program throws, and is sent once if it answers twice', async () => {
    const b = presence(2);
    const port = await bound(b);
    const received: string[] = [];
    b.on('message', (message) => received.push(String(message)));
    const thrower = presence(1, {
      type: 'udp4',
      lookup: () => {
        throw new Error('deed');
      },
    });
    const [error] = await sent(thrower, 'x', port, 'anything');
    expect(error).toMatchObject({ message: 'deed' });
    const twice = presence(1, {
      type: 'udp4',
      lookup: (_name, _family, callback) => {
        callback(null, '10.0.0.2', 4);
        callback(null, '10.0.0.2', 4);
      },
    });
    await sent(twice, 'y', port, 'anything');
    await sent(twice, 'z', port, 'anything');
    await new Promise(setImmediate);
    expect(received).toEqual(['y', 'z']);
    expect(twice.getSendQueueSize()).toBe(0);
  });

  test('fails at once where nobody can be', async () => {
    const [host] = hosts;
    host.refused.set('10.0.0.9', 'ENETUNREACH').set(99, 'ECONNREFUSED');
    const a = presence(1);
    const fields = { syscall: 'send', address: '10.0.0.9', port: 5 };
    expect((await sent(a, 'x', 5, '10.0.0.9'))[0]).toMatchObject({
      code: 'ENETUNREACH',
      ...fields,
    });
    expect((await sent(a, 'x', 99, '10.0.0.2'))[0]).toMatchObject({ code: 'ECONNREFUSED' });
    const failed = once(a, 'error');
    a.connect(99, '10.0.0.2');
    expect((await failed)[0]).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect' });
    const error = await new Promise((resolve) => a.connect(5, '10.0.0.9', resolve as () => void));
    expect(error).toMatchObject({ code: 'ENETUNREACH', syscall: 'connect' });
    // Without a callback it is not told of, as in Node.
    a.send('x', 5, '10.0.0.9');
    await sent(a, 'x', 5, '10.0.0.2');
  });

  test('is bound to an own address alone', async () => {
    const a = presence(1);
    const failed = once(a, 'error');
    a.bind(0, '10.0.0.2');
    expect((await failed)[0]).toMatchObject({ code: 'EADDRNOTAVAIL', address: '10.0.0.2' });
    a.bind({ address: '10.0.0.1', port: 5000 });
    await once(a, 'listening');
    expect(a.address()).toEqual({ address: '10.0.0.1', family: 'IPv4', port: 5000 });
    const b = presence(1);
    const invalid = once(b, 'error');
    b.bind(0, 'fd00::1');
    expect((await invalid)[0]).toMatchObject({ code: 'EINVAL', syscall: 'bind' });
  });

  test('waits for the tunnel, in order', async () => {
    const [host] = hosts;
    host.isUp = false;
    const [a, b] = [presence(1), presence(2)];
    const port = await bound(b);
    const heard: string[] = [];
    const both = new Promise<void>((resolve) => {
      b.on('message', (message) => heard.push(message.toString()) === 2 && resolve());
    });
    a.send('one', port, '10.0.0.2');
    const second = sent(a, 'two', port, '10.0.0.2');
    await once(a, 'listening');
    expect(a.getSendQueueCount()).toBe(2);
    expect(a.getSendQueueSize()).toBe(6);
    host.setUp();
    await Promise.all([both, second]);
    expect(heard).toEqual(['one', 'two']);
    expect(a.getSendQueueCount()).toBe(0);
  });

  test('fails with ENETDOWN if the tunnel stays down, and can be used afterwards', async () => {
    const [host] = hosts;
    host.isUp = false;
    const [a, b] = [presence(1), presence(2)];
    const port = await bound(b);
    await bound(a);
    const first = sent(a, 'x', port, '10.0.0.2');
    const connected = new Promise((resolve) => a.connect(port, '10.0.0.2', resolve as () => void));
    host.failUp();
    expect((await first)[0]).toMatchObject({
      message: `send ENETDOWN 10.0.0.2:${port}`,
      code: 'ENETDOWN',
      syscall: 'send',
      address: '10.0.0.2',
      port,
    });
    expect(await connected).toMatchObject({ message: `connect ENETDOWN 10.0.0.2:${port}` });
    expect(a.getSendQueueSize()).toBe(0);
    host.isUp = true;
    const arrived = nextMessage(b);
    await sent(a, 'y', port, '10.0.0.2');
    await arrived;
  });

  test('a datagram that waits too long in its queue fails with ENETDOWN', async () => {
    const [host] = hosts;
    const [a, b] = [presence(1), presence(2)];
    const port = await bound(b);
    await sent(a, 'x', port, '10.0.0.2');
    host.isUp = false;
    const late = sent(a, 'y', port, '10.0.0.2');
    host.clock.advance(5000);
    host.udp.expire();
    expect((await late)[0]).toMatchObject({ code: 'ENETDOWN', syscall: 'send' });
  });

  test('what waits is bounded, and each callback says what became of its datagram', async () => {
    const [host] = hosts;
    host.isUp = false;
    const a = presence(1);
    await bound(a);
    const results = Array.from({ length: 300 }, () => sent(a, Buffer.alloc(1000), 9, '10.0.0.2'));
    expect(a.getSendQueueSize()).toBeLessThanOrEqual(262_144);
    host.setUp();
    const codes = (await Promise.all(results)).map(
      ([error]) => (error as NodeJS.ErrnoException)?.code
    );
    const taken = codes.filter((code) => code === undefined).length;
    expect(taken).toBe(Math.floor(262_144 / 1256));
    expect(codes.slice(taken).every((code) => code === 'ENOBUFS')).toBe(true);
  });

  test('a program that waits for each callback never fills the queue', async () => {
    const [a, b] = [presence(1), presence(2)];
    const port = await bound(b);
    let heard = 0;
    b.on('message', () => heard++);
    for (let i = 0; i < 300; i++) {
      expect(await sent(a, Buffer.alloc(10_000), port, '10.0.0.2')).toEqual([null, 10_000]);
    }
    await vi.waitFor(() => expect(heard).toBe(300));
  });

  test('closing ends what waits for the tunnel', async () => {
    const [host] = hosts;
    host.isUp = false;
    const a = presence(1);
    await bound(a);
    const waiting = sent(a, 'x', 9, '10.0.0.2');
    a.close();
    opened.length = 0;
    expect((await waiting)[0]).toMatchObject({ code: 'ECANCELED' });
    host.setUp();
  });

  test('a queue that was asked for is smaller; there is a limit', async () => {
    const a = presence(1, { type: 'udp4', recvBufferSize: 10_000, sendBufferSize: 2 ** 31 });
    expect(a.getRecvBufferSize()).toBe(10_000);
    expect(a.getSendBufferSize()).toBe(262_144);
    a.setSendBufferSize(2000);
    expect(a.getSendBufferSize()).toBe(2000);
    expect(thrown(() => a.setRecvBufferSize(-1)).code).toBe('ERR_OUT_OF_RANGE');
    const results = [1, 2, 3].map(() => sent(a, Buffer.alloc(700), 9, '10.0.0.2'));
    const codes = (await Promise.all(results)).map(([e]) => (e as NodeJS.ErrnoException)?.code);
    expect(codes).toEqual([undefined, undefined, 'ENOBUFS']);
  });

  test('the end of the stack is an error with its cause, and closes the socket', async () => {
    const cause = new Error('the site is revoked');
    const a = presence(1);
    await bound(a);
    const events: unknown[] = [];
    a.on('error', (error) => events.push(error));
    const closed = new Promise((resolve) => a.on('close', resolve));
    hosts[0].close(cause);
    await closed;
    opened.length = 0;
    expect(events).toEqual([expect.objectContaining({ code: 'ENETDOWN', cause })]);
    const late = presence(1);
    const failed = once(late, 'error');
    late.bind(0);
    expect((await failed)[0]).toMatchObject({ code: 'ENETDOWN', syscall: 'bind', cause });
    opened.length = 0;
  });

  test('the end of the stack crashes no program that does not listen for errors', async () => {
    const a = presence(1);
    await bound(a);
    // `once` of node:events would listen for errors.
    const closed = new Promise((resolve) => a.on('close', resolve));
    hosts[0].close(new Error('the gateway is closed'));
    await closed;
    opened.length = 0;
  });

  test('sending fails at once after the stack has been refused for good', async () => {
    const a = presence(1);
    await sent(a, 'x', 9, '10.0.0.2');
    const cause = new Error('the site is revoked');
    hosts[0].closedBy = cause;
    expect((await sent(a, 'x', 9, '10.0.0.2'))[0]).toMatchObject({ code: 'ENETDOWN', cause });
  });

  test('what a listener throws is an uncaught exception, and the next message comes', async () => {
    const [a, b] = [presence(1), presence(2)];
    const port = await bound(b);
    const uncaught: unknown[] = [];
    const listeners = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (error) => uncaught.push(error));
    try {
      const heard: string[] = [];
      const both = new Promise<void>((resolve) => {
        b.on('message', (message) => {
          if (heard.push(message.toString()) === 2) resolve();
          throw new Error(message.toString());
        });
      });
      a.send('one', port, '10.0.0.2');
      a.send('two', port, '10.0.0.2');
      await both;
      await new Promise(setImmediate);
      expect(heard).toEqual(['one', 'two']);
      expect(uncaught).toEqual([new Error('one'), new Error('two')]);
    } finally {
      process.removeAllListeners('uncaughtException');
      for (const listener of listeners) process.on('uncaughtException', listener);
    }
  });

  test('can be disposed of twice', async () => {
    const a = presence(1);
    await a[Symbol.asyncDispose]();
    await a[Symbol.asyncDispose]();
    opened.length = 0;
  });
});
