/**
 * The rule of docs/architecture.md: imports run one way. What is not in these tables is not allowed;
 * who adds an arrow adds it here, where it can be seen.
 */
import { existsSync } from 'node:fs';
import { basename } from 'node:path';
import { describe, expect, test } from 'vitest';
import { findCycle, moduleOf, readTree, type SourceFile } from './source-tree.ts';

/** Lowest first: every arrow leads to a module above it in this table. */
const ARROWS: Readonly<Record<string, readonly string[]>> = {
  errors: [],
  base: ['errors'],
  observe: ['base', 'errors'],
  packet: ['base', 'errors'],
  store: ['base', 'errors'],
  etcd: ['base', 'errors', 'store'],
  allocator: ['base', 'errors'],
  pki: ['base', 'errors', 'store'],
  cluster: ['base', 'errors', 'store'],
  dns: ['base', 'errors', 'observe'],
  registry: ['base', 'errors', 'store'],
  translator: ['base', 'errors', 'packet'],
  device: ['base', 'errors', 'packet'],
  tcp: ['base', 'errors', 'packet'],
  sockets: ['base', 'device', 'errors', 'packet', 'store', 'tcp'],
  tunnel: ['base', 'errors', 'packet', 'pki', 'store'],
  control: ['allocator', 'base', 'dns', 'errors', 'registry', 'store', 'translator'],
  trust: ['base', 'errors', 'pki'],
  audit: ['base', 'errors', 'pki', 'registry', 'store', 'trust'],
  dataplane: ['base', 'device', 'errors', 'packet', 'translator', 'tunnel'],
  replay: ['base', 'errors', 'packet', 'registry', 'translator'],
  diagnosis: ['base', 'control', 'errors', 'packet', 'registry', 'translator'],
  admin: [
    'base',
    'control',
    'diagnosis',
    'errors',
    'observe',
    'pki',
    'registry',
    'store',
    'translator',
  ],
  worker: [
    'base',
    'control',
    'dataplane',
    'device',
    'errors',
    'observe',
    'pki',
    'registry',
    'store',
    'translator',
    'tunnel',
  ],
  gateway: [
    'admin',
    'audit',
    'base',
    'cluster',
    'control',
    'dataplane',
    'device',
    'diagnosis',
    'dns',
    'errors',
    'observe',
    'pki',
    'registry',
    'sockets',
    'store',
    'translator',
    'trust',
    'tunnel',
    'worker',
  ],
  cli: [
    'admin',
    'audit',
    'base',
    'cluster',
    'device',
    'diagnosis',
    'dns',
    'errors',
    'etcd',
    'gateway',
    'observe',
    'pki',
    'registry',
    'replay',
    'sockets',
    'store',
    'tunnel',
  ],
  index: [
    'admin',
    'allocator',
    'audit',
    'base',
    'control',
    'dataplane',
    'device',
    'diagnosis',
    'dns',
    'errors',
    'gateway',
    'observe',
    'pki',
    'registry',
    'sockets',
    'store',
    'translator',
    'trust',
    'tunnel',
    'worker',
  ],
};

/** Files other than `index.ts` that modules may be entered by, and who may. */
const SIDE_ENTRIES: Readonly<Record<string, readonly string[]>> = {
  'src/tunnel/frame.ts': ['dataplane'],
  // The command checks an option before it opens anything.
  'src/gateway/edge-options.ts': ['cli'],
  // The files of the command have the entries of the options' schemas.
  'src/gateway/common-options.ts': ['cli'],
  'src/gateway/cloud-options.ts': ['cli'],
  'src/gateway/sockets-options.ts': ['cli'],
  // A machine of several follows what the store has of these.
  'src/control/stored-lease.ts': ['gateway'],
  'src/pki/revocation-index.ts': ['gateway'],
  'src/pki/token-ledger.ts': ['gateway'],
  // The command checks a desired state as the start of a gateway does.
  'src/gateway/cloud-parts.ts': ['cli'],
  'src/sockets/forward/forward.ts': ['cli'],
  'src/sockets/forward/forward-server.ts': ['cli'],
  'src/sockets/forward/publish.ts': ['cli'],
  'src/sockets/host/host-listen.ts': ['cli'],
  'src/sockets/proxy/proxy-options.ts': ['cli'],
  // The command looks at what a gateway would set.
  'src/device/kernel-settings.ts': ['cli'],
  'src/device/ip-command.ts': ['cli'],
  // The command looks at what an edge would connect to.
  'src/pki/token.ts': ['cli'],
  'src/pki/enrolment-message.ts': ['cli'],
  'src/tunnel/messages.ts': ['cli'],
  // What an operator's options for a TUN mean, for TUNs that several workers open.
  'src/device/open-tun.ts': ['worker'],
  // Where several machines answer for presences.
  'src/device/neighbour-announcer.ts': ['worker'],
  // What of the machine may be in conflict with pools.
  'src/device/host-prefixes.ts': ['cli', 'gateway'],
  'src/gateway/host-check.ts': ['cli'],
  // The checks of the contract that every device shares.
  'src/device/contract.ts': ['sockets'],
  // The offsets and sums of packets are for the modules on the packet path, and not public. A translator
  // needs no segmenter either.
  'src/packet/checksum.ts': ['replay', 'sockets', 'tcp', 'translator'],
  'src/packet/fields.ts': ['dataplane', 'replay', 'sockets', 'tcp', 'translator'],
  'src/packet/flow-hash.ts': ['dataplane', 'tunnel'],
  'src/packet/header.ts': ['replay', 'sockets', 'tcp', 'translator'],
  'src/packet/ip-writer.ts': ['replay', 'sockets', 'tcp', 'translator'],
  'src/packet/ipv6-extensions.ts': ['sockets', 'translator'],
  'src/packet/neighbour-frame.ts': ['device'],
  'src/packet/pcapng.ts': ['translator'],
  'src/packet/segments.ts': ['sockets', 'tcp', 'translator'],
  'src/packet/transport-checksum.ts': ['sockets', 'tcp'],
  'src/packet/view.ts': ['sockets', 'tcp', 'translator'],
  'src/packet/virtio.ts': ['device', 'sockets', 'tcp', 'translator', 'tunnel'],
  // The options of a stack and of its backend are a part of those of a gateway.
  'src/sockets/backend/backend-options.ts': ['gateway'],
  'src/sockets/stack-options.ts': ['gateway'],
  // UDP chooses its ports as TCP does.
  'src/tcp/icmp-error.ts': ['sockets'],
  // A capture is asked for in the same words over the admin interface.
  'src/diagnosis/capture-query.ts': ['admin'],
  // The admin interface and the command check records by the schemas of the registry.
  'src/registry/schema.ts': ['admin', 'cli'],
  // The answer to a change has the version of the record as it was written.
  'src/registry/records.ts': ['admin'],
  // The keyed hash of tables.
  'src/tcp/isn.ts': ['sockets'],
  'src/tcp/port-table.ts': ['sockets'],
  'src/tcp/ports.ts': ['sockets'],
  // Types and identities alone: the tunnel needs no authority, and so no node-forge.
  'src/pki/credentials.ts': ['tunnel'],
  'src/pki/names.ts': ['cli', 'tunnel'],
  // A file of another module is kept from other processes in the same way.
  'src/store/durable.ts': ['audit'],
  // The directory is made before it is known whose secrets are in it.
  'src/store/private-directory.ts': ['cli', 'gateway'],
  // A unix socket is replaced by one process at a time.
  'src/store/lock.ts': ['audit', 'sockets'],
  // A plan as values, for what divides it; and as text, for what sends it to another process.
  'src/translator/plan.ts': ['control', 'worker'],
  // What a capture shows is rewritten as the translator rewrites it.
  'src/translator/rewrite.ts': ['replay'],
  // What all stores do with entries in memory.
  'src/store/changes.ts': ['etcd'],
  'src/store/difference.ts': ['etcd'],
  'src/store/json.ts': ['etcd'],
  'src/store/meta.ts': ['cluster', 'etcd'],
  'src/store/table.ts': ['etcd'],
  // The interface alone.
  'src/store/store.ts': ['audit', 'etcd', 'pki', 'tunnel'],
};

/** What each module may take from outside; a module that is missing takes nothing. */
const PACKAGES: Readonly<Record<string, readonly string[]>> = {
  base: ['eventemitter3', 'ip-num', 'node:net', 'node:tls', 'node:util', 'valibot'],
  packet: ['node:crypto'],
  tcp: ['node:crypto'],
  sockets: [
    'node:async_hooks',
    'node:crypto',
    'node:dgram',
    'node:dns',
    'node:events',
    // The limit of descriptors.
    'node:fs',
    'node:fs/promises',
    'node:http',
    'node:https',
    'node:net',
    // Which addresses are those of this host.
    'node:os',
    'node:path',
    'node:stream',
    'node:tls',
    'node:util',
    'valibot',
  ],
  replay: ['node:fs/promises', 'node:os'],
  trust: ['eventemitter3'],
  observe: ['node:http', 'node:net', 'node:perf_hooks'],
  audit: ['eventemitter3', 'node:crypto', 'node:fs', 'node:fs/promises', 'node:path'],
  etcd: ['@grpc/grpc-js', '@grpc/proto-loader'],
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
  registry: ['node:crypto', 'valibot'],
  cluster: ['node:crypto', 'node:util', 'valibot'],
  device: [
    'koffi',
    'node:child_process',
    'node:dgram',
    'node:events',
    'node:fs',
    'node:fs/promises',
    'node:net',
    // Which addresses are those of this host.
    'node:os',
    'node:util',
    'node:worker_threads',
    'valibot',
  ],
  admin: [
    'node:fs',
    'node:fs/promises',
    'node:http',
    'node:module',
    'node:net',
    'node:path',
    'node:stream',
    'valibot',
  ],
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
  cli: [
    'commander',
    'koffi',
    'node:child_process',
    'node:crypto',
    'node:dgram',
    'node:dns/promises',
    'node:events',
    'node:fs',
    'node:fs/promises',
    'node:net',
    'node:os',
    'node:path',
    'node:readline',
    'node:stream',
    'node:timers/promises',
    'node:tls',
    'node:url',
    'node:util',
    'valibot',
    'yaml',
  ],
  diagnosis: ['valibot'],
};

const EXAMPLE_ARROWS: Readonly<Record<string, readonly string[]>> = {
  agent: [],
  'cloud-gateway': [],
  'edge-gateway': [],
  'two-sites': [],
};

/** Its files have nothing in common but their place, so each is imported by its own name. */
const NO_INDEX = 'base';

const source = readTree('src');
const examples = readTree('examples');

/** The arrows out of a module, without those within it. */
function arrowsOf(module: string, files: readonly SourceFile[]): string[] {
  const targets = files.filter((file) => file.module === module).flatMap((file) => file.files);
  return [...new Set(targets.map(moduleOf))].filter((target) => target !== module).sort();
}

describe('modules', () => {
  test('the table is in order: every arrow leads to a module above', () => {
    const modules = Object.keys(ARROWS);
    for (const [module, targets] of Object.entries(ARROWS)) {
      for (const target of targets) {
        expect(modules.indexOf(target), `${module} -> ${target}`).toBeLessThan(
          modules.indexOf(module)
        );
        expect(modules).toContain(target);
      }
    }
  });

  test('there are no other modules than those of the table', () => {
    expect([...new Set(source.map(({ module }) => module))].sort()).toEqual(
      Object.keys(ARROWS).sort()
    );
  });

  test.each(Object.entries(ARROWS))(
    '%s imports from no other modules than it may',
    (module, allowed) => {
      const forbidden = source
        .filter((file) => file.module === module)
        .flatMap(({ path, files }) => files.map((target) => `${path} -> ${target}`))
        .filter((arrow) => {
          const target = moduleOf(arrow.split(' -> ')[1]!);
          return target !== module && !allowed.includes(target);
        });
      expect(forbidden).toEqual([]);
    }
  );

  test('no arrow of the table is unused', () => {
    for (const [module, allowed] of Object.entries(ARROWS)) {
      expect(arrowsOf(module, source), module).toEqual([...allowed].sort());
    }
  });

  test('the translator reaches neither tunnel nor dns nor device, not even through others', () => {
    const reached = new Set(['translator']);
    for (const module of reached) for (const next of arrowsOf(module, source)) reached.add(next);
    for (const module of ['tunnel', 'dns', 'device', 'pki', 'control', 'store']) {
      expect(reached).not.toContain(module);
    }
  });

  test('a module is entered by its index.ts, or by another file that is in the table', () => {
    const broken = source.flatMap(({ path, module, files }) =>
      files
        .filter((target) => moduleOf(target) !== module && target.split('/').length > 2)
        .filter((target) => moduleOf(target) !== NO_INDEX)
        .filter((target) => basename(target) !== 'index.ts')
        .filter((target) => SIDE_ENTRIES[target]?.includes(module) !== true)
        .map((target) => `${path} -> ${target}`)
    );
    expect(broken).toEqual([]);
  });

  test('uses every other entry', () => {
    for (const [entry, modules] of Object.entries(SIDE_ENTRIES)) {
      const users = source.filter(
        ({ module, files }) => module !== moduleOf(entry) && files.includes(entry)
      );
      expect([...new Set(users.map(({ module }) => module))].sort(), entry).toEqual(
        [...modules].sort()
      );
    }
  });

  test('files import each other in no circle', () => {
    expect(findCycle(source)).toBeUndefined();
    expect(findCycle(examples)).toBeUndefined();
  });

  test('the folders of a module import each other in no circle', () => {
    // What is directly in the module puts its folders together.
    const folderOf = (path: string): string | undefined => {
      const parts = path.split('/');
      return parts.length > 3 ? parts.slice(0, 3).join('/') : undefined;
    };
    const folders = new Map<string, Set<string>>();
    for (const { path, module, files } of source) {
      const from = folderOf(path);
      if (from === undefined) continue;
      const targets = folders.get(from) ?? new Set();
      for (const target of files) {
        const to = folderOf(target);
        if (moduleOf(target) === module && to !== undefined && to !== from) targets.add(to);
      }
      folders.set(from, targets);
    }
    const asFiles = [...folders].map(([path, targets]) => ({ path, files: [...targets] }));
    expect(findCycle(asFiles)).toBeUndefined();
  });

  test('packages and Node’s modules are used in the modules that are meant to', () => {
    const broken = source.flatMap(({ path, module, packages }) =>
      packages
        .filter((name) => !PACKAGES[module]?.includes(name))
        .map((name) => `${path} -> ${name}`)
    );
    expect(broken).toEqual([]);
  });
});

describe('entry points', () => {
  const modules = [...new Set(source.map(({ path }) => path))]
    .filter((path) => path.endsWith('/index.ts') && path !== 'src/index.ts')
    .map(moduleOf);

  test('every name of the index is the same one in its module', async () => {
    const all = (await import('../../src/index.ts')) as Record<string, unknown>;
    const found = new Set<string>();
    const singles = source.filter(({ module }) => module === NO_INDEX || module === 'errors');
    const imported = [
      ...modules.map((module) => import(`../../src/${module}/index.ts`)),
      ...singles.map(({ path }) => import(`../../${path}`)),
    ];
    for (const module of await Promise.all(imported)) {
      for (const [name, value] of Object.entries(module as Record<string, unknown>)) {
        if (!(name in all)) continue;
        expect(all[name], name).toBe(value);
        found.add(name);
      }
    }
    expect([...found].sort()).toEqual(Object.keys(all).sort());
  });

  test('every module with a folder has one', () => {
    const folders = new Set(
      source
        .filter(({ path, module }) => path.split('/').length > 2 && module !== NO_INDEX)
        .map(({ module }) => module)
    );
    for (const module of folders) expect(existsSync(`src/${module}/index.ts`), module).toBe(true);
    expect(modules.sort()).toEqual([...folders].sort());
  });
});

describe('examples', () => {
  test.each(Object.keys(EXAMPLE_ARROWS))('%s takes the library by its public name', (module) => {
    const files = examples.filter((file) => file.module === module);
    expect(files.length).toBeGreaterThan(0);
    for (const { path, packages } of files) {
      for (const name of packages) {
        expect(name, path).toMatch(
          /^(node:[a-z_/]+|virtual-presence(\/[a-z]+)?|valibot|yaml|amqplib|undici)$/
        );
      }
    }
    for (const target of arrowsOf(module, examples)) {
      expect(EXAMPLE_ARROWS[module], `${module} -> ${target}`).toContain(target);
    }
  });
});

describe('files', () => {
  const files = [...source, ...examples];

  test('have names that say what is in them', () => {
    const vague = /^(utils?|helpers?|common|types|misc|shared|lib)\.ts$/;
    expect(files.map(({ path }) => path).filter((path) => vague.test(basename(path)))).toEqual([]);
  });

  test('are about one concept each: 480 lines at most, and those above 400 are listed', () => {
    const long = files.filter(({ lines }) => lines > 400);
    for (const { path, lines } of long) console.info(`${path} has ${lines} lines`);
    expect(long.filter(({ lines }) => lines > 480).map(({ path }) => path)).toEqual([]);
  });
});
