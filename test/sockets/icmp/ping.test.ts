import { beforeEach, describe, expect, test } from 'vitest';
import { ping } from '../../../src/sockets/icmp/ping.ts';
import { StackNetwork } from '../stack-network.ts';
import { type DatagramHost, DatagramNetwork } from '../udp/datagram-host.ts';

let network: DatagramNetwork;
let host: DatagramHost;

beforeEach(() => {
  network = new DatagramNetwork();
  host = network.host(1);
  network.host(2);
});

/** Waits until the host has sent a request that stays without a reply. */
async function untilSent(): Promise<void> {
  const before = network.passes;
  await new Promise<void>((resolve) => {
    network.passes = (packet) => {
      resolve();
      return before(packet);
    };
  });
}

test.each([
  ['10.0.0.2', '10.0.0.2', {}],
  ['fd00::2', 'fd00::2', {}],
  ['2.test', '10.0.0.2', {}],
  ['2.test', '10.0.0.2', null],
  ['2.test', 'fd00::2', { family: 6 }],
  ['2.test', '10.0.0.2', { size: 0 }],
  ['2.test', 'fd00::2', { size: 20_000, family: 6 }],
] as const)('%s answers as %s', async (target, address, options) => {
  const size = options !== null && 'size' in options ? options.size : 56;
  const result = await ping(host, host.icmp, target, options);
  expect(result).toEqual({ address, bytes: size, rttMs: 0 });
  expect(host.clock.delays).toEqual([]);
  expect(host.icmp.waiting).toBe(0);
});

test('the time that passes is told', async () => {
  network.passes = (packet) => {
    if (packet[12 + 3] === 1) host.clock.advance(30);
    return true;
  };
  expect((await ping(host, host.icmp, '10.0.0.2')).rttMs).toBe(30);
});

test('many at once do not take each other’s replies', async () => {
  const all = await Promise.all(
    Array.from({ length: 90 }, (_, i) => ping(host, host.icmp, '2.test', { size: i }))
  );
  expect(all.map(({ bytes }) => bytes)).toEqual(Array.from({ length: 90 }, (_, i) => i));
});

describe('it fails', () => {
  test('with ETIMEDOUT without an answer', async () => {
    network.passes = () => false;
    const sent = untilSent();
    const result = expect(ping(host, host.icmp, '10.0.0.2', { timeout: 300 })).rejects;
    const end = result.toMatchObject({ code: 'ETIMEDOUT', syscall: 'ping', address: '10.0.0.2' });
    await sent;
    host.clock.advance(299);
    expect(host.icmp.waiting).toBe(1);
    host.clock.advance(1);
    await end;
    expect(host.icmp.waiting).toBe(0);
  });

  test('with an AbortError when the signal says so', async () => {
    network.passes = () => false;
    const reason = new Error('enough');
    const aborted = AbortSignal.abort(reason);
    const error = { name: 'AbortError', code: 'ABORT_ERR', cause: reason };
    await expect(ping(host, host.icmp, '2.test', { signal: aborted })).rejects.toMatchObject(error);
    const controller = new AbortController();
    const { signal } = controller;
    const sent = untilSent();
    const end = expect(ping(host, host.icmp, '2.test', { signal })).rejects.toMatchObject(error);
    await sent;
    controller.abort(reason);
    await end;
    expect(host.icmp.waiting).toBe(0);
    expect(host.clock.delays).toEqual([]);
  });

  test.each([
    ['nobody.test', 'ENOTFOUND'],
    ['10.0.0.9', 'EHOSTUNREACH'],
  ])('for %s with %s', async (target, code) => {
    host.refused.set('10.0.0.9', 'EHOSTUNREACH');
    await expect(ping(host, host.icmp, target)).rejects.toMatchObject({ code });
  });

  test('where the first address is refused, the second is asked', async () => {
    host.refused.set('10.0.0.2', 'ENETUNREACH');
    expect((await ping(host, host.icmp, '2.test')).address).toBe('fd00::2');
  });

  test('with ENETDOWN while the tunnel is down, and when the stack is closed', async () => {
    host.isUp = false;
    const down = expect(ping(host, host.icmp, '2.test')).rejects.toMatchObject({
      message: 'ping ENETDOWN 2.test',
      code: 'ENETDOWN',
      syscall: 'ping',
      address: '2.test',
    });
    host.failUp();
    await down;
    host.isUp = true;
    network.passes = () => false;
    const sent = untilSent();
    const cause = new Error('revoked');
    const closed = expect(ping(host, host.icmp, '2.test')).rejects.toMatchObject({
      code: 'ENETDOWN',
      cause,
    });
    await sent;
    host.close(cause);
    await closed;
  });

  test('with ENETDOWN when the tunnel is given up', async () => {
    network.passes = () => false;
    const sent = untilSent();
    const cause = new Error('rejected');
    const end = expect(ping(host, host.icmp, '2.test')).rejects.toMatchObject({
      code: 'ENETDOWN',
      syscall: 'ping',
      cause,
    });
    await sent;
    host.failUp(cause);
    await end;
    expect([host.icmp.waiting, host.clock.delays]).toEqual([0, []]);
  });

  test('with ETIMEDOUT if the wait for the tunnel takes the whole time', async () => {
    const stack = new StackNetwork(host.clock).stack('10.1.0.1');
    stack.linkChanged(false);
    const late = { message: 'ping ETIMEDOUT server', code: 'ETIMEDOUT', syscall: 'ping' };
    const short = expect(stack.ping('server', { timeout: 300 })).rejects.toMatchObject(late);
    const whole = expect(stack.ping('server')).rejects.toMatchObject({ code: 'ENETDOWN' });
    host.clock.advance(300);
    await short;
    host.clock.advance(4700);
    await whole;
    expect(host.clock.delays).toEqual([]);
  });

  test.each([undefined, null, 5])('for the target %s with ERR_INVALID_ARG_TYPE', async (target) => {
    const result = ping(host, host.icmp, target as never);
    await expect(result).rejects.toMatchObject({ name: 'TypeError', code: 'ERR_INVALID_ARG_TYPE' });
  });

  test.each([
    [{ size: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ size: 65_508 }, 'ERR_OUT_OF_RANGE'],
    [{ timeout: -1 }, 'ERR_OUT_OF_RANGE'],
    [{ timeout: 'soon' as never }, 'ERR_INVALID_ARG_TYPE'],
  ])('for %o with %s', async (options, code) => {
    await expect(ping(host, host.icmp, '2.test', options)).rejects.toMatchObject({ code });
  });
});
