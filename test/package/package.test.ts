/**
 * The package as a host gets it: packed from a clean copy, installed into an empty folder.
 */
import { execFile, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  cpSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { build } from 'tsup';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { codeOf, compile, NAMED_PROGRAMS, outputOf } from '../documents/snippets.ts';
import { Network, whatIsMissing } from '../support/network.ts';
import pinned from './exports.json' with { type: 'json' };
import { pack } from './pack.ts';

const ENTRIES = Object.keys(manifest.exports)
  // The program of a worker ends where anything except its host loads it.
  .filter((path) => !/json|schemas/.test(path) && path !== './worker-main')
  .map((path) => path.replace(/^\./, manifest.name));
/** Files of the tarball; there are no others, and of each kind there is one. */
const CONTENTS: readonly RegExp[] = [
  /^package\.json$/,
  /^README\.md$/,
  /^LICENSE$/,
  /^CHANGELOG\.md$/,
  /^SECURITY\.md$/,
  /^docs\/[A-Za-z-]+\.md$/,
  /^systemd\/[a-z-]+\.service$/,
  /^schemas\/(cloud|edge)(-api)?\.json$/,
  /^(grafana|prometheus)\/[a-z.-]+\.(json|yml)$/,
  // Entry points and what they share; `chunk-` is what esbuild calls that.
  /^dist\/[\w-]+\.c?js$/,
  /^dist\/[\w-]+\.d\.c?ts$/,
];

/** What the command alone needs. */
const OF_THE_COMMAND = ['commander', 'yaml'];
/** What the library needs in any case: `koffi` is not among it. */
const PURE_DEPENDENCIES = [
  ...Object.keys(manifest.dependencies).filter((name) => !OF_THE_COMMAND.includes(name)),
  '@leichtgewicht/ip-codec',
];

const root = mkdtempSync(join(tmpdir(), 'vp-package-'));
const host = join(root, 'host');
let tarball: string;

beforeAll(() => {
  tarball = pack(root);
  mkdirSync(host);
  writeFileSync(join(host, 'package.json'), '{"private":true}');
  const install = ['install', '--no-audit', '--no-fund', '--prefer-offline', tarball];
  execFileSync('npm', install, { cwd: host, stdio: 'pipe' });
}, 600_000);

afterAll(() => rmSync(root, { recursive: true, force: true }));

test('the package has the documents and what is needed to run, and nothing else', () => {
  const listing = execFileSync('tar', ['-tzf', tarball], { encoding: 'utf8' });
  const files = listing.split('\n').filter((line) => line !== '' && !line.endsWith('/'));
  const paths = files.map((line) => line.replace(/^package\//, ''));
  expect(paths.filter((path) => !CONTENTS.some((pattern) => pattern.test(path)))).toEqual([]);
  for (const pattern of CONTENTS)
    expect(
      paths.some((path) => pattern.test(path)),
      `${pattern}`
    ).toBe(true);
  const documents = readdirSync('docs').filter((name) => name.endsWith('.md'));
  expect(paths.filter((path) => path.startsWith('docs/')).sort()).toEqual(
    documents.map((name) => `docs/${name}`).sort()
  );
  // The built files name no source map, because there is none.
  const built = paths.filter((path) => /^dist\/.*js$/.test(path));
  const mapped = built.filter((path) =>
    readFileSync(join(host, 'node_modules', manifest.name, path), 'utf8').includes(
      'sourceMappingURL'
    )
  );
  expect(mapped).toEqual([]);
});

/** Runs a script of the host and returns what it prints as JSON. */
function run<T>(name: string, script: string, cwd = host): T {
  writeFileSync(join(cwd, name), script);
  return JSON.parse(execFileSync(process.execPath, [name], { cwd, encoding: 'utf8' })) as T;
}

describe('entry points', () => {
  test('all of them load by import and by require, with the same names', () => {
    const entries = JSON.stringify(ENTRIES);
    const esm = run<Record<string, string[]>>(
      'names.mjs',
      `const names = {};
       for (const entry of ${entries}) names[entry] = Object.keys(await import(entry)).sort();
       console.log(JSON.stringify(names));`
    );
    const cjs = run<Record<string, string[]>>(
      'names.cjs',
      `const names = {};
       for (const entry of ${entries}) names[entry] = Object.keys(require(entry)).sort();
       console.log(JSON.stringify(names));`
    );
    expect(esm).toEqual(cjs);
    expect(Object.keys(esm)).toEqual(ENTRIES);
    const names = Object.entries(pinned).map(([path, of]) => [
      path.replace(/^\./, manifest.name),
      of,
    ]);
    expect(esm).toEqual(Object.fromEntries(names));
  });

  test.each([
    ['import', 'identity.mjs', (entry: string) => `await import('${entry}')`],
    ['require', 'identity.cjs', (entry: string) => `require('${entry}')`],
  ])('a class is the same one through all of them, by %s', (_, file, load) => {
    const differing = run<string[]>(
      file,
      `const all = {};
       const differing = [];
       ${ENTRIES.map(
         (entry) => `for (const [name, value] of Object.entries(${load(entry)})) {
           all[name] ??= value;
           if (all[name] !== value) differing.push('${entry} ' + name);
         }`
       ).join('\n')}
       console.log(JSON.stringify(differing));`
    );
    expect(differing).toEqual([]);
  });

  test.each([
    ['import', 'fields.mjs', `await import('${manifest.name}')`],
    ['require', 'fields.cjs', `require('${manifest.name}')`],
  ])('classes whose fields are made of one another are whole, by %s', (_, file, load) => {
    const counters = run<Record<string, number>>(
      file,
      `const { PacketTranslator } = ${load};
       const translator = new PacketTranslator();
       translator.load({ realms: [{ name: 'cloud', sources: [] }], presences: [], permits: [] });
       console.log(JSON.stringify(translator.explain(new Uint8Array(20), 'cloud')));`
    );
    expect(counters).toMatchObject({ verdict: 'DropMalformed' });
  });

  test('the version of the package can be read', () => {
    const version = run<string>(
      'version.cjs',
      `console.log(JSON.stringify(require('${manifest.name}/package.json').version));`
    );
    expect(version).toBe(manifest.version);
  });
});

describe.each([
  ['import', 'esm', 'mjs'],
  ['require', 'cjs', 'cjs'],
] as const)('by %s', (_, format, extension) => {
  test.each(NAMED_PROGRAMS)('%s prints what the document says', async (_, program) => {
    const file = `documented.${extension}`;
    writeFileSync(join(host, file), await compile(codeOf(program), format));
    const stdout = execFileSync(process.execPath, [file], { cwd: host, encoding: 'utf8' });
    expect(stdout).toBe(outputOf(program));
  });
});

describe('what a host loads', () => {
  /** A folder in which there is the package, and of its dependencies these alone. */
  function hostWith(name: string, dependencies: readonly string[]): string {
    const folder = join(root, name);
    for (const each of [manifest.name, ...dependencies]) {
      const from = join(host, 'node_modules', each);
      cpSync(from, join(folder, 'node_modules', each), { recursive: true });
    }
    return folder;
  }

  /** Node's own modules that are loaded when the script has run, besides those always there. */
  const loaded = `console.log(JSON.stringify(process.moduleLoadList
    .map((name) => name.replace(/^(NativeModule|Internal Binding) /, ''))
    .filter((name) => /^(tls|net|dgram|http|https|child_process|_tls_wrap|crypto)$/.test(name))));`;

  test('the translator needs ip-num alone, and neither TLS nor sockets', () => {
    const folder = hostWith('translator-host', ['ip-num']);
    const entry = `${manifest.name}/translator`;
    expect(run('plain.cjs', loaded, folder)).toEqual([]);
    expect(run('a.cjs', `require('${entry}'); ${loaded}`, folder)).toEqual([]);
    const plain = run<string[]>('plain.mjs', loaded, folder);
    expect(run('b.mjs', `await import('${entry}'); ${loaded}`, folder)).toEqual(plain);
  });

  test.each([
    ['import', 'root.mjs', (entry: string) => `await import('${entry}')`],
    ['require', 'root.cjs', (entry: string) => `require('${entry}')`],
  ])(
    'everything loads without what the command needs, koffi and the program of a worker, by %s',
    (_, file, load) => {
      const folder = hostWith('bare-host', PURE_DEPENDENCIES);
      for (const extension of ['js', 'cjs']) {
        const dist = join(folder, 'node_modules', manifest.name, 'dist');
        rmSync(join(dist, `worker-main.${extension}`), { force: true });
      }
      const packages = readdirSync(join(folder, 'node_modules'));
      expect(packages.filter((name) => OF_THE_COMMAND.includes(name))).toEqual([]);
      const loading = ENTRIES.map((entry) => load(entry)).join(';\n');
      expect(run<string>(file, `${loading};\nconsole.log('"loaded"');`, folder)).toBe('loaded');
    }
  );

  test('everything loads without koffi, which a TUN alone needs', () => {
    const folder = hostWith('no-koffi-host', PURE_DEPENDENCIES);
    const says = run<string>(
      'tun.mjs',
      `const { LinuxTun, MemoryDevice } = await import('${manifest.name}');
       MemoryDevice.pair();
       const fault = await LinuxTun.open({ name: 'vp-none' }).catch((error) => error);
       console.log(JSON.stringify(fault.code + ' ' + fault.message));`,
      folder
    );
    expect(says).toMatch(/^ERR_PRESENCE_ENVIRONMENT .*koffi/);
  });
});

describe('the command of the package', () => {
  /** An empty folder in which the package is found, as after `npm install`; another user may use it. */
  function emptyFolder(name: string): string {
    const folder = join(root, name);
    mkdirSync(folder);
    symlinkSync(join(host, 'node_modules'), join(folder, 'node_modules'));
    for (const path of [root, host]) chmodSync(path, 0o755);
    chmodSync(folder, 0o777);
    return folder;
  }

  /** What a new user types, with what stands behind `init cloud`; it ends when the gateway has said what to do. */
  function newcomer(folder: string, options = ''): readonly string[] {
    const script = `
      cd ${folder}
      export HOME=${folder} npm_config_cache=${folder}/cache
      npx virtual-presence init cloud ${options} && exec npx virtual-presence cloud cloud.yaml`;
    return ['sh', '-ec', script];
  }

  const reasonNoTun = whatIsMissing({});
  const isWithoutTun = reasonNoTun !== undefined && process.env.CI === undefined;
  const title = isWithoutTun ? ` (skipped: ${reasonNoTun})` : '';
  test.skipIf(isWithoutTun)(`init and cloud run with a TUN as root${title}`, async () => {
    const directory = join(root, 'newcomer-network');
    mkdirSync(directory);
    const network = await Network.create(directory);
    try {
      const machine = await network.newHost('cloud', undefined);
      await machine.sh('ip link set lo up');
      const program = machine.start(newcomer(emptyFolder('newcomer-root')), 90);
      await program.printed(/npx virtual-presence edge edge\.yaml\n/);
      expect(program.text).toMatch(/^The gateway uses a TUN device, because /m);
      expect(program.text).toMatch(/Z info cloud gateway ready, /);
      expect(await machine.sh('ip -o link show type tun')).toContain('vp0');
      await machine.sh('kill $(pgrep -nf "[v]irtual-presence cloud cloud.yaml")');
      expect((await program.ended).text).toMatch(/SIGTERM: shutting down\n$/);
    } finally {
      await network.close();
    }
  });

  const asUser = commandAsUser();
  test.skipIf(asUser === undefined)(
    'init and cloud run without a TUN as an ordinary user (needs setpriv when run as root)',
    async () => {
      const folder = emptyFolder('newcomer-user');
      const [program, ...args] = [...asUser!, ...newcomer(folder, '--tunnel 127.0.0.1:0')];
      const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'], detached: true });
      let output = '';
      const ended = once(child, 'close');
      try {
        await new Promise<void>((resolve, reject) => {
          for (const stream of [child.stdout, child.stderr]) {
            stream.setEncoding('utf8').on('data', (text: string) => {
              output += text;
              if (/npx virtual-presence edge edge\.yaml\n/.test(output)) resolve();
            });
          }
          ended.then(() => reject(new Error(`it has ended: ${output}`)));
        });
        expect(output).toMatch(/^The gateway uses sockets of its own process, because this user /m);
        expect(output).toMatch(/Z info there is no site yet; /);
      } finally {
        process.kill(-child.pid!, 'SIGTERM');
        await ended;
      }
    }
  );
});

/** A command that runs another one as an ordinary user; undefined if there is none. */
function commandAsUser(): string[] | undefined {
  if (process.getuid?.() !== 0) return [];
  const command = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  const probe = spawnSync(command[0]!, [...command.slice(1), process.execPath, '--version']);
  return probe.status === 0 ? command : undefined;
}

const skipReason = whatIsMissing({});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const skipTitle = isSkipped ? ` (skipped: ${skipReason})` : '';

describe.skipIf(isSkipped)(`a program of somebody else with two workers${skipTitle}`, () => {
  let network: Network | undefined;
  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    const directory = join(root, 'network');
    mkdirSync(directory);
    network = await Network.create(directory);
  });
  afterAll(() => network?.close());

  /** Bundles the program under another name, and returns the path of the bundle. */
  async function bundle(format: 'esm' | 'cjs', noExternal: RegExp[] = []): Promise<string> {
    const name = noExternal.length === 0 ? 'their-service' : 'all-in-one';
    const outDir = join(host, 'built');
    const workerMain = join(host, 'worker-source.ts');
    writeFileSync(workerMain, `import '${manifest.name}/worker-main';`);
    const program = join(host, 'host-program.ts');
    cpSync('test/package/host-program.ts', program);
    // The folder of the host has a compiler of its own, which knows nothing of ours.
    writeFileSync(join(host, 'tsconfig.bundle.json'), '{}');
    await build({
      config: false,
      tsconfig: join(host, 'tsconfig.bundle.json'),
      entry: { [name]: program, ...(noExternal.length > 0 && { 'their-worker': workerMain }) },
      format,
      outDir,
      outExtension: () => ({ js: format === 'esm' ? '.mjs' : '.cjs' }),
      target: 'node20',
      external: [...(noExternal.length > 0 ? [] : [/^virtual-presence/]), 'koffi'],
      noExternal,
      clean: false,
      silent: true,
    });
    return join(outDir, `${name}.${format === 'esm' ? 'mjs' : 'cjs'}`);
  }

  /** Runs the program to its end, on a host of its own, and returns what it printed. */
  async function runOn(name: string, args: readonly string[]): Promise<Report> {
    const machine = await network!.newHost(name, undefined);
    const { code, stdout, stderr } = await machine.run([process.execPath, ...args], 120);
    const lines = stdout.split('\n').slice(0, -1);
    const report = Object.assign({}, ...lines.map((line) => JSON.parse(line))) as Report;
    const values = (key: string): unknown[] =>
      lines.map((line) => JSON.parse(line)[key]).filter((value) => value !== undefined);
    const left = await machine.sh('ip -o link show type tun; ip route show proto 118');
    const all = {
      answers: values('answer'),
      logs: values('log'),
      commands: values('command'),
      states: values('state'),
      heard: values('heard'),
    };
    return { ...report, ...all, code, stderr, left } as Report;
  }

  function expectBothCameBack(report: Report, program: RegExp): void {
    expect(report, report.fault ?? report.stderr).toMatchObject({ code: 0, ended: true });
    const answer = (say: string) => ({ type: 'answer', to: { type: 'question', say } });
    expect(report.answers).toEqual([answer('before'), answer('after')]);
    expect(report).toMatchObject({ isNew: true, isOtherTheSame: true, code: 0, left: '' });
    expect(report.logs).toContain('process 0 has ended (SIGKILL), starting it again');
    expect(report.heard).toEqual(['heard before', 'heard after']);
    expect(report.states).toEqual([
      ['ready', 'degraded'],
      ['degraded', 'ready'],
      ['ready', 'closed'],
    ]);
    expect(report.areNew).toEqual([0, 1].map((worker) => worker === report.holder));
    // Two of the pool and two of the gateway.
    expect(report.commands).toHaveLength(4);
    for (const command of report.commands) {
      expect(command[1]).toMatch(program);
      // Neither the arguments of the host nor its program.
      expect(command.slice(2)).toEqual(['']);
    }
  }

  test.each([
    ['esm', /\/dist\/worker-main\.js$/],
    ['cjs', /\/dist\/worker-main\.cjs$/],
  ] as const)('bundled as %s, has a worker that is killed back', async (format, program) => {
    const path = await bundle(format);
    const args = ['serve', '--config', 'their.toml', '--member'];
    const report = await runOn(`bundled-${format}`, [path, ...args]);
    expect(report.argv).toEqual(args);
    expectBothCameBack(report, program);
  });

  test('with the library in its bundle, has it with a second bundle for the workers alone', async () => {
    const path = await bundle('cjs', [/^(?!koffi)/]);
    const lost = await runOn('all-in-one-lost', [path]);
    expect(lost.fault).toMatch(/ConfigError: workerMain: .*virtual-presence\/worker-main/);
    expect(lost.code).toBe(1);
    const main = join(host, 'built', 'their-worker.cjs');
    const report = await runOn('all-in-one', [path, `--worker-main=${main}`]);
    expectBothCameBack(report, /\/built\/their-worker\.cjs$/);
  });
});

/** What `host-program.ts` has printed, and how it ended. */
interface Report {
  readonly argv: readonly string[];
  readonly answers: readonly unknown[];
  readonly logs: readonly string[];
  readonly commands: readonly (readonly string[])[];
  /** Each change of the gateway's state, from what to what. */
  readonly states: readonly (readonly [string, string])[];
  /** What the service behind the gateway has answered. */
  readonly heard: readonly string[];
  /** Which workers of the gateway are other processes in the end; the one that was killed has this number. */
  readonly areNew?: readonly boolean[];
  readonly holder?: number;
  readonly fault?: string;
  readonly code: number | null;
  readonly stderr: string;
  /** TUNs and routes that are still there. */
  readonly left: string;
}

describe('types', () => {
  test.each([
    // As Node reads it, as a module of either kind; and as a bundler does.
    ['nodenext', { module: 'nodenext' }, ['consumer.mts', 'consumer.cts']],
    ['bundler', { module: 'esnext', moduleResolution: 'bundler' }, ['consumer.ts']],
  ])('a strict consumer compiles against every entry point, by %s', async (name, kind, files) => {
    const names = ENTRIES.map((_, i) => `entry${i}`);
    const imports = ENTRIES.map((entry, i) => `import * as entry${i} from '${entry}';`).join('\n');
    const consumer = `${imports}
      import { CloudGateway, type CloudGatewayOptions, EdgeGateway, IpAddress, MemoryDevice, PacketTranslator, PresenceError, SocketDevice, VERSION, Verdict } from '${manifest.name}';
      import { promisify } from 'node:util';
      import { openDevice, type DeviceOptions, type PacketDevice } from '${manifest.name}/device';
      import { PacketTranslator as Same, type TranslationPlan } from '${manifest.name}/translator';
      import { ConfigError } from '${manifest.name}/errors';
      import type { SocketStack } from '${manifest.name}/sockets';
      const plan: TranslationPlan = { realms: [], presences: [], permits: [] };
      const translator: Same = new PacketTranslator();
      translator.load(plan);
      const text: string = IpAddress.parse('192.0.2.1').toString();
      export const all: object[] = [${names.join(', ')}, { text, VERSION, none: Verdict.Forward }];
      export async function pair(options: Omit<CloudGatewayOptions, 'device'>): Promise<string | undefined> {
        const [near, far] = [MemoryDevice.pair(), MemoryDevice.pair()];
        const cloud = await CloudGateway.start({ ...options, device: near[0] });
        cloud.on('state', ({ state, previous, reasons }) => console.log(state, previous, reasons.join()));
        const token = await cloud.createToken({ site: 'site-a' });
        const edge: AsyncDisposable & EdgeGateway = await EdgeGateway.start({ stateDirectory: '.', token, device: far[0] });
        await edge.ready({ signal: AbortSignal.timeout(30_000) });
        return edge.failure?.kind;
      }
      // @ts-expect-error a cloud gateway has a device
      export const incomplete: CloudGatewayOptions = { trustDomain: 'example.test', tunnel: '192.0.2.1:7443' };
      // @ts-expect-error an option that there is not
      new PacketTranslator({ colour: 'red' });
      // @ts-expect-error undefined is no value of an option
      MemoryDevice.pair({ mtu: undefined });
      const first: PacketDevice | undefined = [...MemoryDevice.pair()][0];
      const options: DeviceOptions = { type: 'udp', local: '127.0.0.1:0', peer: { host: '127.0.0.1', port: 9 } };
      export async function use(sockets: SocketStack): Promise<void> {
        const one: string = (await promisify(sockets.lookup)('web')).address;
        const families: number[] = (await promisify(sockets.lookup)(one, { all: true })).map(({ family }) => family);
        const socket = sockets.connect(80, 'web').on('close', (hadError) => families.push(Number(hadError)));
        socket.once('lookup', (error, address) => console.log(error?.message, address?.length)).setNoDelay();
        socket.setEncoding('utf8').on('data', (text: string) => socket.write(text)).on('theirs', (any) => any);
        sockets.createServer().on('connection', (other) => other.pipe(socket)).on('drop', (it) => it.remotePort);
        sockets.datagram('udp4').on('message', (message, { port }) => console.log(message.length, port));
      }
      export async function open(): Promise<PacketDevice> {
        try {
          return first ?? (await openDevice(options, (problem: string) => void problem));
        } catch (error) {
          if (error instanceof PresenceError && error instanceof ConfigError) throw new Error(error.path);
          return SocketDevice.open({ type: 'unix', path: '/run/vp', role: 'connect' });
        }
      }
    `;
    for (const file of files) writeFileSync(join(host, file), consumer);
    const compilerOptions = {
      strict: true,
      noEmit: true,
      ...kind,
      target: 'es2022',
      exactOptionalPropertyTypes: true,
      noUncheckedIndexedAccess: true,
      types: ['node'],
      typeRoots: [resolve('node_modules/@types')],
      skipLibCheck: false,
    };
    const project = `tsconfig.${name}.json`;
    writeFileSync(join(host, project), JSON.stringify({ compilerOptions, files }));
    expect(await tool('tsc', ['-p', join(host, project)])).toBe('');
  });

  test.each([
    ['import', 'mts'],
    ['require', 'cts'],
  ])('declare as values what there is at run time, and nothing else, by %s', (kind, extension) => {
    const declared = declaredValues(`values.${extension}`);
    const load = (entry: string): string =>
      kind === 'import' ? `await import('${entry}')` : `require('${entry}')`;
    const exported = run<Record<string, string[]>>(
      `values.${extension.replace('ts', 'js')}`,
      `const names = {};
       ${ENTRIES.map((entry) => `names['${entry}'] = Object.keys(${load(entry)}).sort();`).join('\n')}
       console.log(JSON.stringify(names));`
    );
    expect(declared).toEqual(exported);
  });

  test('attw finds every entry point resolvable', async () => {
    const report = await tool('attw', [tarball, '--profile', 'node16', '--format', 'json']);
    const { problems = {} } = JSON.parse(report) as { problems?: Record<string, Problem[]> };
    // The report also has resolution as Node 10 did it, which knows no subpath exports.
    const ours = Object.values(problems)
      .flat()
      .filter(({ resolutionKind }) => resolutionKind !== 'node10');
    expect(ours).toEqual([]);
  });

  test('publint has nothing to say', async () => {
    expect(await tool('publint', ['run', tarball, '--strict'])).toMatch(/All good!/);
  });
});

/** The names of each entry point that can be used as a value, as the compiler reads the declarations. */
function declaredValues(file: string): Record<string, string[]> {
  const path = join(host, file);
  writeFileSync(
    path,
    ENTRIES.map((entry, i) => `import * as entry${i} from '${entry}';`).join('\n')
  );
  const program = ts.createProgram([path], {
    module: ts.ModuleKind.NodeNext,
    target: ts.ScriptTarget.ES2022,
    types: ['node'],
    typeRoots: [resolve('node_modules/@types')],
    noEmit: true,
  });
  const checker = program.getTypeChecker();
  const values: Record<string, string[]> = {};
  for (const statement of program.getSourceFile(path)!.statements) {
    if (!ts.isImportDeclaration(statement)) continue;
    const entry = (statement.moduleSpecifier as ts.StringLiteral).text;
    const namespace = statement.importClause!.namedBindings as ts.NamespaceImport;
    // The type of a namespace has its values alone, however a type is exported.
    const properties = checker.getTypeAtLocation(namespace.name).getProperties();
    values[entry] = properties.map(({ name }) => name).sort();
  }
  return values;
}

interface Problem {
  readonly kind: string;
  readonly resolutionKind: string;
}

/** Runs a tool of ours; returns what it prints, whether it is content or not. */
async function tool(name: string, args: readonly string[]): Promise<string> {
  const path = resolve('node_modules/.bin', name);
  const { stdout } = await promisify(execFile)(path, args).catch(
    (error: { stdout: string }) => error
  );
  return stdout;
}
