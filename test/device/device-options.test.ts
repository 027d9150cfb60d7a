import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { parseSchema } from '../../src/base/schema.ts';
import {
  configureTun,
  DeviceOptionsSchema,
  isPacketDevice,
  LINUX_TUN_DEFAULTS,
  LinuxTun,
  MEMORY_DEVICE_DEFAULTS,
  MemoryDevice,
  openDevice,
  type PacketDevice,
  SOCKET_DEVICE_DEFAULTS,
  SocketDevice,
  TUN_DEVICE_DEFAULTS,
} from '../../src/device/index.ts';
import { ApiMisuseError, ConfigError } from '../../src/errors.ts';
import { ip, titled, useNamespace } from '../support/namespace.ts';

const skipReason = await useNamespace();

const cleanups: (() => unknown)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

/** A peer at which nobody listens, for a device that sends nothing. */
const PEER = { host: '127.0.0.1', port: 9 };
const UDP = { type: 'udp', local: '127.0.0.1:0', peer: '127.0.0.1:9' } as const;

async function opened(options: Parameters<typeof openDevice>[0]): Promise<PacketDevice> {
  const device = await openDevice(options);
  cleanups.push(() => device.close());
  return device;
}

describe('DeviceOptionsSchema', () => {
  test('fills in the defaults, except for the routes', () => {
    const read = (options: unknown) => parseSchema(DeviceOptionsSchema, options);
    expect(read({ type: 'tun', name: 'vp0' })).toEqual({
      type: 'tun',
      name: 'vp0',
      mtu: 1500,
      proxyArp: [],
      transit: [],
    });
    expect(read({ type: 'tun', name: 'vp0', routes: [] })).toMatchObject({ routes: [] });
    const udp = { type: 'udp', local: { host: '127.0.0.1', port: 0 }, peer: PEER, mtu: 1500 };
    expect(read(UDP)).toEqual(udp);
    expect(read(udp)).toEqual(udp);
    const unix = { type: 'unix', path: '/run/vp', role: 'connect', mtu: 1280 };
    expect(read(unix)).toEqual(unix);
  });

  test.each([
    [{}, 'type: is missing, expected "tun" or "udp" or "unix"'],
    [{ type: 'tap' }, 'type: expected "tun" or "udp" or "unix", got "tap"'],
    [{ type: 'tun' }, 'name: is missing'],
    [{ type: 'tun', name: 7 }, 'name: expected a string, got 7'],
    [
      { type: 'tun', name: 'a b' },
      'name: expected an interface name of 1 to 15 characters, got "a b"',
    ],
    [
      { type: 'tun', name: 'vp0', mtu: 1279 },
      'mtu: expected a whole number from 1280 to 65535, got 1279',
    ],
    [{ type: 'tun', name: 'vp0', mtu: '1500' }, 'mtu: expected a number, got "1500"'],
    [
      { type: 'tun', name: 'vp0', routes: '10.0.0.0/8' },
      'routes: expected a list, got "10.0.0.0/8"',
    ],
    [
      { type: 'tun', name: 'vp0', routes: ['10.0.0.1/8'] },
      'routes[0]: "10.0.0.1/8" has bits set behind its length; did you mean 10.0.0.0/8?',
    ],
    [{ type: 'tun', name: 'vp0', colour: 'red' }, 'colour: is not a known key'],
    [{ ...UDP, peer: undefined }, 'peer: is missing, expected a string'],
    [{ ...UDP, peer: '127.0.0.1:0' }, 'peer: expected a port from 1 to 65535'],
    [
      { ...UDP, local: 'localhost:0' },
      'local: expected an IP address, not a name, before the port',
    ],
    [{ ...UDP, peer: '[::1]:9' }, 'expected addresses of one IP version as local and peer'],
    [{ type: 'unix', path: '', role: 'listen' }, 'path: expected a path, got ""'],
    [
      { type: 'unix', path: '/run/vp', role: 'both' },
      'role: expected "listen" or "connect", got "both"',
    ],
  ])('refuses %j', (options, message) => {
    expect(() => parseSchema(DeviceOptionsSchema, options)).toThrow(
      expect.objectContaining({ message, code: 'ERR_PRESENCE_CONFIG' })
    );
  });
});

describe('openDevice', () => {
  test('opens a UDP device, and one over a unix socket', async () => {
    const udp = await opened(UDP);
    expect(udp).toBeInstanceOf(SocketDevice);
    expect((udp as SocketDevice).local).toMatchObject({ host: '127.0.0.1' });
    const directory = mkdtempSync(join(tmpdir(), 'vp-device-'));
    cleanups.push(() => rmSync(directory, { recursive: true }));
    const path = join(directory, 's');
    const unix = await opened({ type: 'unix', path, role: 'listen', mtu: 1400 });
    expect(unix).toMatchObject({ name: `unix:${path}`, mtu: 1400 });
  });

  test.skipIf(skipReason !== undefined)(
    titled('opens a TUN, sets up the machine, and reports what it lacks', skipReason),
    async () => {
      const problems: string[] = [];
      const routes = ['198.51.100.0/24'];
      const options = { type: 'tun', name: 'vp0', mtu: 1400, routes } as const;
      const device = await openDevice(options, (problem) => void problems.push(problem));
      cleanups.push(() => device.close());
      expect(device).toBeInstanceOf(LinuxTun);
      expect(device.mtu).toBe(1400);
      expect(ip('route', 'show', 'dev', 'vp0')).toContain('198.51.100.0/24');
      expect(problems).toContain(
        'nothing is forwarded to and from vp0; name the interfaces of the LAN in device.lan'
      );
    }
  );

  test.each([undefined, null, 'tun', { type: 'tun', name: '' }, { ...UDP, mtu: 70_000 }])(
    'refuses %j with a ConfigError',
    async (options) => {
      await expect(openDevice(options as never)).rejects.toThrow(ConfigError);
    }
  );
});

describe('isPacketDevice', () => {
  test('distinguishes a device, of the library or of a program, from options', () => {
    const [device] = MemoryDevice.pair();
    expect(isPacketDevice(device)).toBe(true);
    const { read, write, start, pause, resume, close, mtu, offload, counters } = device;
    const theirs = { name: 'theirs', read, write, start, pause, resume, close, mtu, offload };
    expect(isPacketDevice({ ...theirs, counters })).toBe(true);
    for (const value of [undefined, null, 'vp0', UDP, theirs, [], () => device]) {
      expect(isPacketDevice(value)).toBe(false);
    }
  });
});

describe('devices', () => {
  test('have frozen defaults', () => {
    expect(LINUX_TUN_DEFAULTS).toEqual({
      mtu: 1500,
      queueLength: 10_000,
      offload: true,
      persist: false,
      wakeup: 'auto',
    });
    expect(MEMORY_DEVICE_DEFAULTS).toEqual({
      names: ['memory0', 'memory1'],
      mtu: 1500,
      offload: true,
      queueLength: 1024,
    });
    expect(SOCKET_DEVICE_DEFAULTS).toEqual({
      mtu: 1500,
      queueLength: 1024,
      learnPeer: false,
      reconnectMs: 1000,
    });
    expect(TUN_DEVICE_DEFAULTS).toEqual({ mtu: 1500, proxyArp: [], transit: [] });
    const all = [LINUX_TUN_DEFAULTS, MEMORY_DEVICE_DEFAULTS, SOCKET_DEVICE_DEFAULTS];
    for (const each of [...all, TUN_DEVICE_DEFAULTS]) expect(Object.isFrozen(each)).toBe(true);
    const [first, second] = MemoryDevice.pair();
    const { mtu, offload } = MEMORY_DEVICE_DEFAULTS;
    expect([first.name, second.name]).toEqual(MEMORY_DEVICE_DEFAULTS.names);
    expect(first).toMatchObject({ mtu, offload });
  });

  test('are closed by asyncDispose', async () => {
    const [memory] = MemoryDevice.pair();
    const socket = await SocketDevice.open(UDP);
    for (const device of [memory, socket]) {
      await device[Symbol.asyncDispose]();
      await device.close();
      expect(() => device.start(() => {})).toThrow('is closed');
    }
  });

  test.each([
    ['options must be an object, not tun', () => LinuxTun.open('tun' as never)],
    ['"undefined" is not an interface name', () => LinuxTun.open({} as never)],
    ['offload must be true or false, not 1', () => tun({ offload: 1 })],
    ['persist must be true or false, not yes', () => tun({ persist: 'yes' })],
    ['mtu must be a whole number from 68 to 65535, not 1500', () => tun({ mtu: '1500' })],
    ['queueLength must be a whole number', () => tun({ queueLength: 1.5 })],
    ['wakeup must be one of libuv, thread-pool, auto, not poll', () => tun({ wakeup: 'poll' })],
    ['onGone must be a function, not an object', () => tun({ onGone: {} })],
    ['options must be an object, not undefined', () => SocketDevice.open(undefined as never)],
    ['type must be udp or unix, not tcp', () => SocketDevice.open({ type: 'tcp' } as never)],
    ['local: is missing, expected a string', () => socket({ local: undefined })],
    ['peer: expected a port from 1 to 65535', () => socket({ peer: '127.0.0.1:0' })],
    ['learnPeer must be true or false, not no', () => socket({ learnPeer: 'no' })],
    ['name must be a text, not 7', () => socket({ name: 7 })],
    ['schedule must be a function, not 7', () => socket({ schedule: 7 })],
    ['path must be a text, not undefined', () => unix({ path: undefined })],
    ['role must be listen or connect, not both', () => unix({ role: 'both' })],
    ['reconnectMs must be a whole number', () => unix({ reconnectMs: 0 })],
    ['clock must be an object, not 7', () => unix({ clock: 7 })],
    ['names must be a list, not a', () => memory({ names: 'a' })],
    ['names[1] must be a text, not 7', () => memory({ names: ['a', 7] })],
    ['length of names must be a whole number from 2 to 2, not 1', () => memory({ names: ['a'] })],
    ['offload must be true or false, not no', () => memory({ offload: 'no' })],
    ['faults must be an object, not 7', () => memory({ faults: 7 })],
    ['schedule must be a function, not an object', () => memory({ schedule: {} })],
    ['lan must be a list, not lan0', () => configured({ lan: 'lan0' })],
    ['proxyArp[0] must be a text, not 7', () => configured({ proxyArp: [7] })],
    ['routes must be a list, not undefined', () => configured({ routes: undefined })],
    ['routes[0] must be a text, not 7', () => configured({ routes: [7] })],
    ['unreachable must be a list, not 7', () => configured({ unreachable: 7 })],
    ['onProblem must be a function, not 7', () => configured({ onProblem: 7 })],
  ])('report to a program in plain JavaScript: %s', async (message, call) => {
    const calling = (async () => call())();
    await expect(calling).rejects.toThrow(ApiMisuseError);
    await expect(calling).rejects.toThrow(message);
  });
});

function tun(options: object): Promise<unknown> {
  return LinuxTun.open({ name: 'vp0', ...options });
}

function socket(options: object): Promise<unknown> {
  return SocketDevice.open({ ...UDP, ...options });
}

function unix(options: object): Promise<unknown> {
  return SocketDevice.open({ type: 'unix', path: '/nowhere', role: 'connect', ...options });
}

function memory(options: object): unknown {
  return MemoryDevice.pair(options);
}

function configured(options: object): Promise<unknown> {
  return configureTun({ name: 'vp0', routes: [], ...options });
}
