/**
 * A stack whose option `address` is no address of its site: the cloud drops all its packets, so calls fail at once.
 */
import { once } from 'node:events';
import { beforeEach, expect, test } from 'vitest';
import type { SocketStack } from '../../src/sockets/stack.ts';
import { StackNetwork } from './stack-network.ts';

/** Outside the sources; in a pool. */
const WRONG = ['192.0.2.3', '2001:db8:2::9'] as const;
const fault = (address: string): object => ({
  code: 'EADDRNOTAVAIL',
  cause: expect.objectContaining({
    message: expect.stringMatching(
      `^${address} cannot be used, expected one of the site's sources 10.0.0.0/8,2001:db8::/32 outside its pools$`
    ),
  }),
});

let stack: SocketStack;

beforeEach(() => {
  stack = new StackNetwork().stack(...WRONG);
  stack.setSite({
    sources: ['10.0.0.0/8', '2001:db8::/32'],
    pools: ['10.2.0.0/16', '2001:db8:2::/48'],
    zone: 'test',
    hosts: [{ name: 'server', addresses: ['10.2.0.1'], ports: ['tcp/80', 'icmp'] }],
  });
});

test('connect fails at once, also outside the pools', async () => {
  const [error] = await once(stack.connect(80, '10.2.0.1'), 'error');
  expect(error).toMatchObject({
    ...fault('192.0.2.3'),
    message: 'connect EADDRNOTAVAIL 10.2.0.1:80',
    syscall: 'connect',
    address: '10.2.0.1',
    port: 80,
  });
  const [other] = await once(stack.connect(80, '2001:db8:3::1'), 'error');
  expect(other).toMatchObject(fault('2001:db8:2::9'));
});

test('listen fails at this address, and not at all addresses, as in Node', async () => {
  const [error] = await once(stack.createServer().listen(80, '192.0.2.3'), 'error');
  expect(error).toMatchObject({ ...fault('192.0.2.3'), syscall: 'listen', port: 80 });
  await once(stack.createServer().listen(80), 'listening');
});

test('a datagram is not sent, and a socket is neither connected nor bound', async () => {
  const socket = stack.datagram('udp4');
  const sent = new Promise((resolve) => socket.send('x', 7, '10.2.0.1', resolve));
  expect(await sent).toMatchObject({ ...fault('192.0.2.3'), syscall: 'send' });
  socket.connect(7, '10.2.0.1');
  expect((await once(socket, 'error'))[0]).toMatchObject(fault('192.0.2.3'));
  const [error] = await once(stack.datagram('udp4').bind(7, '192.0.2.3'), 'error');
  expect(error).toMatchObject({ ...fault('192.0.2.3'), syscall: 'bind' });
});

test('a forward is refused at once, also to the own address, which is in a pool', async () => {
  for (const [host, own] of [
    ['10.2.0.1', '192.0.2.3'],
    ['2001:db8:2::9', '2001:db8:2::9'],
  ] as const) {
    await expect(stack.forward(0, { host, port: 80 })).rejects.toMatchObject(fault(own));
  }
});

test('ping fails at once', async () => {
  const error = { ...fault('192.0.2.3'), syscall: 'ping' };
  await expect(stack.ping('10.2.0.1')).rejects.toMatchObject(error);
});
