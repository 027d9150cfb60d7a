/**
 * The rule of docs/architecture.md: imports run one way. What is not in these tables is not allowed;
 * who adds an arrow adds it here, where it can be seen.
 */
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { describe, expect, test } from 'vitest';
import { findCycle, readTree, roomOf, type SourceFile } from './source-tree.ts';

/** Lowest first: every arrow leads to a room above it in this table. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  address: ['errors'],
  'port-range': ['errors'],
  'rate-limit': ['errors'],
  'connection-gate': ['address', 'errors', 'rate-limit'],
  'key-exchange': [],
  proxy: ['errors'],
  'socket-error': [],
  schema: ['address', 'errors', 'port-range'],
  'host-port': ['schema'],
  'proxy-connect': ['errors', 'host-port', 'proxy', 'socket-error'],
  version: [],
  clock: [],
  logger: [],
  'close-stack': [],
  emitter: [],
  'option-check': ['clock', 'errors'],
  packet: ['address', 'errors'],
  store: ['errors', 'option-check'],
  allocator: ['address', 'clock', 'errors', 'option-check'],
  pki: [
    'clock',
    'connection-gate',
    'errors',
    'host-port',
    'key-exchange',
    'option-check',
    'proxy',
    'proxy-connect',
    'schema',
    'socket-error',
    'store',
  ],
  dns: ['address', 'clock', 'errors', 'host-port', 'option-check', 'rate-limit', 'schema'],
  registry: ['address', 'errors', 'option-check', 'schema', 'store'],
  translator: ['address', 'clock', 'errors', 'option-check', 'packet', 'port-range'],
  device: ['address', 'clock', 'errors', 'host-port', 'packet', 'schema'],
  tunnel: [
    'clock',
    'connection-gate',
    'errors',
    'host-port',
    'key-exchange',
    'packet',
    'pki',
    'proxy',
    'proxy-connect',
    'rate-limit',
    'schema',
    'socket-error',
    'store',
  ],
  control: [
    'address',
    'allocator',
    'clock',
    'dns',
    'emitter',
    'errors',
    'option-check',
    'port-range',
    'rate-limit',
    'registry',
    'schema',
    'store',
    'translator',
  ],
  trust: ['clock', 'errors', 'option-check', 'pki'],
  audit: ['clock', 'errors', 'option-check', 'pki', 'registry', 'store', 'trust'],
  dataplane: ['clock', 'device', 'errors', 'option-check', 'packet', 'translator', 'tunnel'],
  worker: [
    'clock',
    'control',
    'dataplane',
    'device',
    'errors',
    'host-port',
    'logger',
    'pki',
    'registry',
    'schema',
    'store',
    'translator',
    'tunnel',
    'version',
  ],
  admin: [
    'control',
    'errors',
    'option-check',
    'pki',
    'registry',
    'schema',
    'store',
    'translator',
    'trust',
  ],
  gateway: [
    'admin',
    'audit',
    'clock',
    'close-stack',
    'control',
    'dataplane',
    'device',
    'dns',
    'emitter',
    'errors',
    'host-port',
    'logger',
    'option-check',
    'pki',
    'proxy',
    'registry',
    'schema',
    'store',
    'translator',
    'trust',
    'tunnel',
    'worker',
  ],
  index: [
    'address',
    'admin',
    'allocator',
    'audit',
    'clock',
    'control',
    'dataplane',
    'device',
    'dns',
    'errors',
    'gateway',
    'host-port',
    'key-exchange',
    'logger',
    'pki',
    'proxy',
    'registry',
    'store',
    'translator',
    'trust',
    'tunnel',
    'version',
    'worker',
  ],
};

/** Files other than `index.ts` that rooms may be entered by, and who may. */
const SIDE_DOORS: Readonly<Record<string, readonly string[]>> = {
  'src/tunnel/frame.ts': ['dataplane'],
  'src/tunnel/backoff.ts': ['gateway'],
  // What an operator's options for a TUN mean, for TUNs that several workers open.
  'src/device/open-tun.ts': ['worker'],
  // The offsets and sums of packets are for the rooms on the packet path, and not public. A translator
  // needs no cutter either.
  'src/packet/checksum.ts': ['translator'],
  'src/packet/fields.ts': ['translator'],
  'src/packet/flow-hash.ts': ['tunnel'],
  'src/packet/header.ts': ['translator'],
  'src/packet/ipv6-extensions.ts': ['translator'],
  'src/packet/pcapng.ts': ['translator'],
  'src/packet/segments.ts': ['translator'],
  'src/packet/view.ts': ['translator'],
  'src/packet/virtio.ts': ['device', 'translator', 'tunnel'],
  // Types and identities alone: the tunnel needs no authority, and so no node-forge.
  'src/pki/credentials.ts': ['tunnel'],
  'src/pki/names.ts': ['tunnel'],
  // A file of another room is kept from other processes in the same way.
  'src/store/durable.ts': ['audit'],
  // The directory is made before it is known whose secrets are in it.
  'src/store/private-directory.ts': ['gateway'],
  'src/store/lock.ts': ['audit'],
  // The interface alone.
  'src/store/store.ts': ['audit', 'pki', 'tunnel'],
};

/** What each room may take from outside; a room that is missing takes nothing. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  address: ['ip-num'],
  emitter: ['eventemitter3'],
  'host-port': ['node:net', 'valibot'],
  'key-exchange': ['node:tls'],
  proxy: ['node:net'],
  'proxy-connect': ['node:net'],
  packet: ['node:crypto'],
  schema: ['valibot'],
  trust: ['eventemitter3'],
  audit: ['eventemitter3', 'node:crypto', 'node:fs', 'node:fs/promises', 'node:path'],
  store: ['node:crypto', 'node:fs', 'node:fs/promises', 'node:net', 'node:path', 'node:zlib'],
  pki: [
    'eventemitter3',
    'node-forge',
    'node:crypto',
    'node:http',
    'node:net',
    'node:stream',
    'node:tls',
    'valibot',
  ],
  dns: ['dns-packet', 'node:crypto', 'node:dgram', 'node:events', 'node:net', 'valibot'],
  registry: ['eventemitter3', 'valibot'],
  device: [
    'koffi',
    'node:child_process',
    'node:dgram',
    'node:events',
    'node:fs',
    'node:fs/promises',
    'node:net',
    'node:util',
    'node:worker_threads',
    'valibot',
  ],
  admin: ['node:fs', 'node:http', 'node:net', 'node:path', 'valibot'],
  worker: [
    'eventemitter3',
    'node:child_process',
    'node:crypto',
    'node:fs',
    'node:module',
    'node:os',
    'node:path',
    'node:timers/promises',
    'node:url',
  ],
  gateway: ['eventemitter3', 'node:crypto', 'node:path', 'valibot'],
  tunnel: ['eventemitter3', 'node:crypto', 'node:net', 'node:stream', 'node:tls', 'valibot'],
  control: ['eventemitter3', 'node:crypto', 'valibot'],
};

const EXAMPLE_ARROWS: Readonly<Record<string, readonly string[]>> = {
  program: [],
  'cloud-gateway': ['program'],
  'edge-gateway': ['program'],
  'two-sites': ['cloud-gateway', 'edge-gateway', 'program'],
};

const source = readTree('src');
const examples = readTree('examples');

/** The arrows out of a room, without those within it. */
function arrowsOf(room: string, files: readonly SourceFile[]): string[] {
  const targets = files.filter((file) => file.room === room).flatMap((file) => file.files);
  return [...new Set(targets.map(roomOf))].filter((target) => target !== room).sort();
}

describe('rooms', () => {
  test('the table is in order: every arrow leads to a room above', () => {
    const rooms = Object.keys(ARROWS);
    for (const [room, targets] of Object.entries(ARROWS)) {
      for (const target of targets) {
        expect(rooms.indexOf(target), `${room} -> ${target}`).toBeLessThan(rooms.indexOf(room));
        expect(rooms).toContain(target);
      }
    }
  });

  test('there are no other rooms than those of the table', () => {
    expect([...new Set(source.map(({ room }) => room))].sort()).toEqual(Object.keys(ARROWS).sort());
  });

  test.each(Object.entries(ARROWS))(
    '%s imports from no other rooms than it may',
    (room, allowed) => {
      const forbidden = source
        .filter((file) => file.room === room)
        .flatMap(({ path, files }) => files.map((target) => `${path} -> ${target}`))
        .filter((arrow) => {
          const target = roomOf(arrow.split(' -> ')[1]!);
          return target !== room && !allowed.includes(target);
        });
      expect(forbidden).toEqual([]);
    }
  );

  test('no arrow of the table is unused', () => {
    for (const [room, allowed] of Object.entries(ARROWS)) {
      expect(arrowsOf(room, source), room).toEqual([...allowed].sort());
    }
  });

  test('the translator reaches neither tunnel nor dns nor device, by no way round', () => {
    const reached = new Set(['translator']);
    for (const room of reached) for (const next of arrowsOf(room, source)) reached.add(next);
    for (const room of ['tunnel', 'dns', 'device', 'pki', 'control', 'store']) {
      expect(reached).not.toContain(room);
    }
  });

  test('a room is entered by its index.ts, or by a side door that stands in the table', () => {
    const broken = source.flatMap(({ path, room, files }) =>
      files
        .filter((target) => roomOf(target) !== room && target.split('/').length > 2)
        .filter((target) => basename(target) !== 'index.ts')
        .filter((target) => SIDE_DOORS[target]?.includes(room) !== true)
        .map((target) => `${path} -> ${target}`)
    );
    expect(broken).toEqual([]);
  });

  test('no side door is unused', () => {
    for (const [door, rooms] of Object.entries(SIDE_DOORS)) {
      const users = source.filter(
        ({ room, files }) => room !== roomOf(door) && files.includes(door)
      );
      expect([...new Set(users.map(({ room }) => room))].sort(), door).toEqual([...rooms].sort());
    }
  });

  test('files import each other in no circle', () => {
    expect(findCycle(source)).toBeUndefined();
    expect(findCycle(examples)).toBeUndefined();
  });

  test('packages and Node’s modules are used in the rooms that are meant to', () => {
    const broken = source.flatMap(({ path, room, packages }) =>
      packages.filter((name) => !PACKAGES[room]?.includes(name)).map((name) => `${path} -> ${name}`)
    );
    expect(broken).toEqual([]);
  });
});

describe('entry points', () => {
  const rooms = [...new Set(source.map(({ path }) => path))]
    .filter((path) => path.endsWith('/index.ts') && path !== 'src/index.ts')
    .map(roomOf);

  test('every name of the index is the same one in its module', async () => {
    const all = (await import('../../src/index.ts')) as Record<string, unknown>;
    const found = new Set<string>();
    const singles = ARROWS.index!.filter((room) => !rooms.includes(room));
    const modules = [
      ...rooms.map((room) => import(`../../src/${room}/index.ts`)),
      ...singles.map((file) => import(`../../src/${file}.ts`)),
    ];
    for (const module of await Promise.all(modules)) {
      for (const [name, value] of Object.entries(module as Record<string, unknown>)) {
        if (!(name in all)) continue;
        expect(all[name], name).toBe(value);
        found.add(name);
      }
    }
    expect([...found].sort()).toEqual(Object.keys(all).sort());
  });

  test('every room with a folder has one', () => {
    const folders = new Set(
      source.filter(({ path }) => path.split('/').length > 2).map(({ room }) => room)
    );
    for (const room of folders) expect(existsSync(`src/${room}/index.ts`), room).toBe(true);
    expect(rooms.sort()).toEqual([...folders].sort());
  });
});

describe('examples', () => {
  test.each(Object.keys(EXAMPLE_ARROWS))('%s takes the library by its public name', (room) => {
    const files = examples.filter((file) => file.room === room);
    expect(files.length).toBeGreaterThan(0);
    for (const { path, packages } of files) {
      for (const name of packages) {
        expect(name, path).toMatch(
          /^(node:[a-z_/]+|virtual-presence(\/[a-z]+)?|valibot|yaml|amqplib)$/
        );
      }
    }
    for (const target of arrowsOf(room, examples)) {
      expect(EXAMPLE_ARROWS[room], `${room} -> ${target}`).toContain(target);
    }
  });
});

describe('files', () => {
  const files = [...source, ...examples];

  test('have names that say what is in them', () => {
    const vague = /^(utils?|helpers?|common|types|misc|shared|lib)\.ts$/;
    expect(files.map(({ path }) => path).filter((path) => vague.test(basename(path)))).toEqual([]);
  });

  test('are about one concept each: 480 lines at most, and those above 400 are told', () => {
    const long = files.filter(({ lines }) => lines > 400);
    for (const { path, lines } of long) console.info(`${path} has ${lines} lines`);
    expect(long.filter(({ lines }) => lines > 480).map(({ path }) => path)).toEqual([]);
  });
});
