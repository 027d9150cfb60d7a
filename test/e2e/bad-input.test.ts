/**
 * A gateway that is started with any input runs, or ends with one clear sentence and the exit code of its kind.
 */
import { spawnSync } from 'node:child_process';
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { chmodSync, existsSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ExitCode } from '../../src/cli/index.ts';
import {
  admin,
  type Config,
  cloudConfig,
  type Ending,
  edgeConfig,
  eventually,
  GatewayProcess,
  killGateways,
  listenTcp,
  outcome,
  type Program,
  startCloud,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import {
  type ConfigFault,
  FAULTS_OF_BOTH,
  FAULTS_OF_CLOUD,
  FAULTS_OF_EDGE,
} from './config-faults.ts';

const workspace = new Workspace();
afterAll(async () => {
  await killGateways();
  workspace.remove();
});

/** Expects one sentence of the command and nothing else. */
function expectSentence({ code, complaint }: Ending, exitCode: ExitCode): string {
  const lines = complaint.split('\n');
  expect(lines, complaint).toHaveLength(1);
  expect(lines[0]).not.toMatch(/^\s*at |node:internal|Error:/);
  expect(lines[0]!.startsWith(NAME), complaint).toBe(true);
  expect(code, complaint).toBe(exitCode);
  return lines[0]!.slice(NAME.length);
}

const NAME = 'virtual-presence: ';

/** A gateway with this configuration ends before it dials. */
const NO_TUNNEL = 9;

function goodConfig(program: Program): Config {
  return program === 'cloud' ? cloudConfig() : edgeConfig(NO_TUNNEL);
}

const PROGRAMS: readonly Program[] = ['cloud', 'edge'];

describe.concurrent.each(PROGRAMS)('%s, configuration', (program) => {
  const texts: readonly [fault: string, text: string, says: RegExp][] = [
    ['is not YAML', 'dns:\n  listen: "127.0.0.1:53\n', /^FILE:\d+: is not YAML: /],
    ['has a key twice', 'dns: 1\ndevice: 2\ndns: 3\n', /^FILE:3: is not YAML: .*unique/],
    ['is a list', '- dns\n', /^FILE: expected a mapping of keys to values$/],
    ['is empty', '', /^FILE: expected a mapping of keys to values$/],
    ['has an alias without an anchor', 'dns: *nobody\n', /^FILE(:1)?: is not YAML: .*nobody/],
  ];
  test.each(texts)('a file that %s ends the gateway, with file and line', async (_, text, says) => {
    const path = writeConfig(workspace.newDirectory(), text);
    const sentence = expectSentence(await outcome(program, [path]), ExitCode.Usage);
    expect(sentence.replace(path, 'FILE')).toMatch(says);
  });

  test('no argument, or two, ends it with a sentence', async () => {
    for (const [args, says] of [
      [[], "missing required argument 'file'"],
      [['a.yaml', 'b.yaml'], `too many arguments for '${program}'. Expected 1 argument but got 2.`],
    ] as const) {
      expect(expectSentence(await outcome(program, args), ExitCode.Usage)).toBe(says);
    }
  });

  test('a path that does not exist, or is a directory, ends it with the path', async () => {
    const directory = workspace.newDirectory();
    const missing = join(directory, 'missing.yaml');
    expect(expectSentence(await outcome(program, [missing]), ExitCode.Usage)).toBe(
      `the configuration ${missing} cannot be read: it does not exist`
    );
    expect(expectSentence(await outcome(program, [directory]), ExitCode.Usage)).toBe(
      `the configuration ${directory} cannot be read: it is a directory`
    );
  });

  test('a FIFO, or a device, instead of the file ends it with the path', async () => {
    const fifo = join(workspace.newDirectory(), 'fifo.yaml');
    spawnSync('mkfifo', [fifo]);
    for (const path of [fifo, '/dev/null']) {
      expect(expectSentence(await outcome(program, [path]), ExitCode.Usage)).toBe(
        `the configuration ${path} cannot be read: it is not a regular file`
      );
    }
  });

  const faults = [...FAULTS_OF_BOTH, ...(program === 'cloud' ? FAULTS_OF_CLOUD : FAULTS_OF_EDGE)];
  const named = faults.map((fault): [string, ConfigFault] => [fault.fault, fault]);
  test.each(named)('%s ends it with line and key', async (_, fault) => {
    const config = goodConfig(program);
    fault.spoil(config);
    const path = writeConfig(workspace.newDirectory(), config);
    const sentence = expectSentence(await outcome(program, [path]), ExitCode.Usage);
    const lines = readFileSync(path, 'utf8').split('\n');
    const { line, key } = fault;
    const number = line === undefined ? -1 : lines.findLastIndex((each) => each.includes(line));
    const place = line === undefined ? path : `${path}:${number + 1}`;
    expect(sentence.startsWith(`${place}: ${key}: `), sentence).toBe(true);
    expect(sentence.slice(`${place}: ${key}: `.length)).toMatch(fault.says);
  });
});

describe.concurrent('environment', () => {
  let cloud: GatewayProcess;
  let cloudHome: string;
  let tunnelPort: number;
  const callAdmin = (method: string, path: string, body?: unknown) =>
    admin(join(cloudHome, 'admin.sock'), method, path, body);

  beforeAll(async () => {
    cloudHome = workspace.newDirectory();
    ({ process: cloud, tunnelPort } = await startCloud(writeConfig(cloudHome, cloudConfig())));
  });

  async function newToken(request: object): Promise<string> {
    const { status, body } = await callAdmin('POST', '/v1/tokens', request);
    expect(status, body.detail).toBe(201);
    return body.token!;
  }

  /** Returns a directory for an edge of the cloud; without a token file if `token` is undefined. */
  function edgeHome(token: string | undefined, change: Config = {}): string {
    const home = workspace.newDirectory();
    writeConfig(home, { ...edgeConfig(tunnelPort), ...change });
    if (token !== undefined) writeFileSync(join(home, 'token'), token);
    return home;
  }

  function startEdge(home: string): GatewayProcess {
    return new GatewayProcess('edge', [join(home, 'gateway.yaml')]);
  }

  async function refusedEdge(home: string, exitCode: ExitCode = ExitCode.Failed): Promise<string> {
    return expectSentence(await startEdge(home).ended, exitCode);
  }

  /** Returns a directory whose edge has enrolled, was online, and was terminated. */
  async function enrolledHome(site: string): Promise<string> {
    const home = edgeHome(await newToken({ site }));
    const edge = startEdge(home);
    await edge.logged(/: up to /);
    expect((await edge.kill('SIGTERM')).code).toBe(0);
    return home;
  }

  async function refusedCloud(
    change: (config: Config) => void,
    exitCode: ExitCode = ExitCode.Failed
  ): Promise<string> {
    const home = workspace.newDirectory();
    const config = cloudConfig();
    change(config);
    const ending = await outcome('cloud', [writeConfig(home, config)]);
    expect(existsSync(join(home, 'admin.sock'))).toBe(false);
    return expectSentence(ending, exitCode);
  }

  test('a token can be used only once', async () => {
    const token = await newToken({ site: 'site-a' });
    const first = startEdge(edgeHome(token));
    await first.logged(/: up to /);
    const home = edgeHome(token);
    expect(await refusedEdge(home, ExitCode.Refused)).toBe(
      `the enrolment token has been used; put a new token into ${join(home, 'token')}`
    );
    await first.kill('SIGTERM');
  });

  test('an expired token is refused with its time', async () => {
    const token = await newToken({ site: 'site-a', lifetimeSeconds: 1 });
    const expiresBefore = Date.now() + 1000;
    const home = edgeHome(token);
    await eventually('the expiry', () => Date.now() > expiresBefore || undefined);
    expect(await refusedEdge(home, ExitCode.Refused)).toMatch(
      /^the enrolment token expired at \d{4}-/
    );
  });

  test.each([
    ['malformed', 'not an enrolment token'],
    ['vp1.e30', 'the enrolment token is damaged'],
    ['', 'is empty: put a token of the cloud into it'],
  ])('a token file with the content "%s" is refused', async (token, sentence) => {
    expect(await refusedEdge(edgeHome(token), ExitCode.Usage)).toContain(sentence);
  });

  test('a missing token file is named', async () => {
    const home = edgeHome(undefined);
    expect(await refusedEdge(home)).toBe(
      `the token file ${join(home, 'token')} cannot be read: it does not exist`
    );
  });

  test('an enrolment endpoint that refuses connections is named, and the edge keeps trying', async () => {
    const nobody = await refusingTcpPort();
    const token = await newToken({ site: 'site-a' });
    const moved = withToken(token, (json) => {
      json.endpoints = [`https://127.0.0.1:${nobody.port}`];
    });
    const patient = startEdge(edgeHome(moved));
    await patient.logged(
      new RegExp(
        ` not enrolled: no enrolment endpoint answers: https://127\\.0\\.0\\.1:${nobody.port}: .*REFUSED`
      )
    );
    expect(await patient.kill('SIGTERM')).toMatchObject({ code: 0, complaint: '' });
    nobody.close();
  });

  test('a token that pins another CA than the endpoint’s is not used up', async () => {
    const token = await newToken({ site: 'site-a' });
    const pinned = withToken(token, (json) => {
      json.caSpkiHash = Buffer.alloc(32, 7).toString('base64url');
    });
    expect(await refusedEdge(edgeHome(pinned))).toMatch(
      /no root certificate of the CA that the token pins/
    );
    const edge = startEdge(edgeHome(token));
    await edge.logged(/: up to /);
    await edge.kill('SIGTERM');
  });

  test('a token for a site that does not exist is refused to the operator', async () => {
    const unknown = await callAdmin('POST', '/v1/tokens', { site: 'site-c' });
    expect(unknown).toMatchObject({
      status: 400,
      body: { path: 'site', detail: 'site: "site-c" is not a site' },
    });
    const itself = await callAdmin('POST', '/v1/tokens', { site: 'cloud' });
    expect(itself).toMatchObject({
      status: 400,
      body: { detail: expect.stringMatching(/"cloud"/) },
    });
  });

  test('a certificate of another CA, and a damaged or missing part of the credentials, are named', async () => {
    const home = await enrolledHome('site-a');
    const state = join(home, 'state');
    const certificate = join(state, 'certificate.pem');
    const key = readFileSync(join(state, 'key.pem'));

    writeFileSync(join(state, 'key.pem'), readFileSync(join(cloudHome, 'state/ca-key.pem')));
    expect(await refusedEdge(home)).toMatch(
      /key\.pem.*do not fit together: the certificate is for another key/
    );
    writeFileSync(join(state, 'key.pem'), key);

    const ca = readFileSync(join(state, 'ca.pem'));
    writeFileSync(join(state, 'ca.pem'), readFileSync(certificate));
    expect(await refusedEdge(home)).toMatch(
      /ca\.pem.*do not fit together: among the trust anchors is one that is not a CA certificate/
    );
    writeFileSync(join(state, 'ca.pem'), ca);

    writeFileSync(certificate, 'damaged');
    expect(await refusedEdge(home)).toMatch(/certificate\.pem is damaged: /);
  });

  test('an edge of another CA ends, and an edge whose cloud does not answer keeps trying', async () => {
    const home = await enrolledHome('site-b');
    const otherPath = writeConfig(workspace.newDirectory(), cloudConfig());
    const other = await startCloud(otherPath);
    writeConfig(home, edgeConfig(other.tunnelPort));
    expect(await refusedEdge(home)).toMatch(
      /^no tunnel, the certificates do not fit: .*127\.0\.0\.1 port \d+: .*certificate.*; put a new token into /
    );

    await other.process.kill('SIGTERM');
    const nobody = await refusingTcpPort();
    writeConfig(home, edgeConfig(nobody.port));
    const patient = startEdge(home);
    await patient.logged(/trying again in .*REFUSED/);
    expect(patient.child.exitCode).toBeNull();
    expect(await patient.kill('SIGTERM')).toMatchObject({ code: 0, complaint: '' });
    nobody.close();
  });

  test('an edge whose site was removed from the desired state is refused', async () => {
    const home = workspace.newDirectory();
    const config = cloudConfig();
    const other = await startCloud(writeConfig(home, config));
    const socket = join(home, 'admin.sock');
    const { body } = await admin(socket, 'POST', '/v1/tokens', { site: 'site-b' });
    const edge = edgeHome(body.token!, { cloud: [`127.0.0.1:${other.tunnelPort}`] });
    const up = startEdge(edge);
    await up.logged(/: up to /);

    (config.desired as { sites: unknown[] }).sites.pop();
    writeConfig(home, config);
    expect(await admin(socket, 'POST', '/v1/reload')).toMatchObject({ status: 200 });
    await up.logged(/refuses the tunnel \(unknown-site\)/);
    await up.kill('SIGTERM');
    expect(await refusedEdge(edge, ExitCode.Refused)).toMatch(
      /refuses the tunnel \(unknown-site\): .*"site-b"/
    );
    await other.process.kill('SIGTERM');
  });

  const endpoints = ['https://127.0.0.1:0'];
  test.each<[which: string, change: (listen: string) => Config]>([
    ['tunnel', (tunnel) => ({ tunnel })],
    ['enrolment', (listen) => ({ enrolment: { listen, endpoints } })],
    ['dns', (listen) => ({ dns: { listen } })],
  ])('a %s port that is in use is named by the cloud gateway', async (_, change) => {
    const { server, port } = await listenTcp();
    const sentence = await refusedCloud((config) =>
      Object.assign(config, change(`127.0.0.1:${port}`))
    );
    expect(sentence).toMatch(new RegExp(`\\b${port}\\b.*(in use|listens)`));
    server.close();
  });

  test('a DNS port that is in use for UDP only is named by the edge gateway', async () => {
    const { socket, port } = await bindUdp();
    const token = await newToken({ site: 'site-b' });
    const home = edgeHome(token, { dns: { listen: `127.0.0.1:${port}` } });
    // The test has the port for UDP only; for a moment another program may have it for TCP.
    expect(await refusedEdge(home)).toMatch(new RegExp(`(UDP|TCP) port ${port}: .*listens`));
    socket.close();
  });

  test('a device port that is in use is named by both gateways', async () => {
    const { socket, port } = await bindUdp();
    const device = { type: 'udp', local: `127.0.0.1:${port}`, peer: '127.0.0.1:9' };
    const says = new RegExp(`127\\.0\\.0\\.1 port ${port}.*EADDRINUSE`);
    expect(await refusedCloud((config) => Object.assign(config, { device }))).toMatch(says);
    const home = edgeHome(await newToken({ site: 'site-a' }), { device });
    expect(await refusedEdge(home)).toMatch(says);
    socket.close();
  });

  test('an admin socket of a running gateway is named, that of a dead gateway is replaced', async () => {
    const socket = join(cloudHome, 'admin.sock');
    const home = workspace.newDirectory();
    const path = writeConfig(home, { ...cloudConfig(), adminSocket: socket });
    expect(expectSentence(await outcome('cloud', [path]), ExitCode.Failed)).toBe(
      `the admin socket ${socket} is in use by another process`
    );
    expect((await callAdmin('GET', '/v1/status')).status).toBe(200);

    writeConfig(home, cloudConfig());
    const killed = new GatewayProcess('cloud', [path]);
    await killed.logged(/ready/);
    await killed.kill('SIGKILL');
    expect(existsSync(join(home, 'admin.sock'))).toBe(true);
    const next = new GatewayProcess('cloud', [path]);
    await next.logged(/ready/);
    expect(await next.kill('SIGTERM')).toMatchObject({ code: 0, complaint: '' });
    expect(existsSync(join(home, 'admin.sock'))).toBe(false);
  });

  test('a state directory that cannot be created is named', async () => {
    const file = join(workspace.newDirectory(), 'file');
    writeFileSync(file, '');
    expect(
      await refusedCloud((config) => {
        config.stateDirectory = join(file, 'state');
      })
    ).toBe(`the state directory ${file}/state cannot be made: a part of the path is a file`);
    const home = edgeHome('', { stateDirectory: file });
    expect(await refusedEdge(home)).toBe(
      `the state directory ${file} cannot be made: it is a file`
    );
  });

  test.skipIf(!existsSync('/proc'))(
    'a state directory where none can exist is named (needs /proc)',
    async () => {
      const says = 'the state directory /proc/x/y cannot be made: /proc takes no directories';
      const stateDirectory = '/proc/x/y';
      expect(await refusedCloud((config) => Object.assign(config, { stateDirectory }))).toBe(says);
      expect(await refusedEdge(edgeHome('', { stateDirectory }))).toBe(says);
    }
  );

  test('a state directory is created with its parents, for its owner only', async () => {
    const home = workspace.newDirectory();
    const config = { ...cloudConfig(), stateDirectory: './a/b/state' };
    const gateway = new GatewayProcess('cloud', [writeConfig(home, config)]);
    await gateway.logged(/ready/);
    for (const path of ['a', 'a/b', 'a/b/state']) {
      expect(statSync(join(home, path)).mode & 0o777).toBe(0o700);
    }
    expect((await gateway.kill('SIGTERM')).code).toBe(0);
  });

  test('an admin socket whose path is too long, or whose directory does not exist, is named', async () => {
    const long = `/tmp/${'x'.repeat(103)}`;
    expect(await refusedCloud((config) => Object.assign(config, { adminSocket: long }))).toBe(
      `the path of the admin socket must have 1 to 107 bytes, none of them 0: "${long}" has 108`
    );
    const lost = join(workspace.newDirectory(), 'missing/admin.sock');
    expect(await refusedCloud((config) => Object.assign(config, { adminSocket: lost }))).toBe(
      `cannot listen on the admin socket ${lost}: there is no directory ${dirname(lost)}`
    );
  });

  test('a state directory that another gateway uses is named with the process', async () => {
    const sentence = await refusedCloud((config) => {
      config.stateDirectory = join(cloudHome, 'state');
    });
    expect(sentence).toMatch(new RegExp(`/state/.*process ${cloud.child.pid}`));
  });

  test('a damaged store is named with its line, and left unchanged', async () => {
    const home = workspace.newDirectory();
    mkdirSync(join(home, 'state'), { mode: 0o700 });
    const journal = join(home, 'state/store.journal');
    const intact = readFileSync(join(cloudHome, 'state/store.journal'), 'utf8');
    const damaged = intact.replace('site-b', 'site-x');
    writeFileSync(journal, damaged);
    const path = writeConfig(home, cloudConfig());
    const sentence = expectSentence(await outcome('cloud', [path]), ExitCode.Failed);
    expect(sentence).toMatch(/^line 2 of .*store\.journal is damaged/);
    expect(readFileSync(journal, 'utf8')).toBe(damaged);
  });

  test('a damaged CA certificate is named', async () => {
    const home = workspace.newDirectory();
    mkdirSync(join(home, 'state'), { mode: 0o700 });
    writeFileSync(join(home, 'state/ca.pem'), 'damaged');
    writeFileSync(
      join(home, 'state/ca-key.pem'),
      readFileSync(join(cloudHome, 'state/ca-key.pem'))
    );
    const path = writeConfig(home, cloudConfig());
    const sentence = expectSentence(await outcome('cloud', [path]), ExitCode.Failed);
    expect(sentence).toMatch(/CA certificate/);
  });

  const withoutTun = commandWithoutTun();
  test.skipIf(withoutTun === undefined)(
    'both gateways report a missing permission for a TUN (needs setpriv when run as root)',
    async () => {
      const device = { type: 'tun', name: 'vp-nobody' };
      const home = workspace.newDirectory();
      const path = writeConfig(home, { ...cloudConfig(), device });
      const cloudEnding = await outcome('cloud', [path], withoutTun);
      expect(expectSentence(cloudEnding, ExitCode.Failed)).toMatch(NO_TUN);

      const edge = edgeHome(await newToken({ site: 'site-a' }), { device });
      const edgeEnding = await outcome('edge', [join(edge, 'gateway.yaml')], withoutTun);
      expect(expectSentence(edgeEnding, ExitCode.Failed)).toMatch(NO_TUN);
    }
  );

  const asNobody = commandAsNobody();
  test.skipIf(asNobody === undefined)(
    'files that only another user can read are named (needs setpriv and root)',
    async () => {
      const home = workspace.newDirectory();
      chmodSync(workspace.path, 0o755);
      chmodSync(home, 0o755);
      const path = writeConfig(home, cloudConfig());
      const noState = await outcome('cloud', [path], asNobody);
      expect(expectSentence(noState, ExitCode.Failed)).toBe(
        `the state directory ${home}/state cannot be made: this user may not`
      );
      chmodSync(path, 0o600);
      const noConfig = await outcome('cloud', [path], asNobody);
      expect(expectSentence(noConfig, ExitCode.Usage)).toBe(
        `the configuration ${path} cannot be read: this user may not`
      );
    }
  );

  test('a gateway that is terminated during its start exits with 0 and leaves nothing', async () => {
    const home = workspace.newDirectory();
    const starting = new GatewayProcess('cloud', [writeConfig(home, cloudConfig())]);
    // The store is opened early; after that follow the CA, four ports and a socket until "ready".
    await eventually('a store', () => existsSync(join(home, 'state')) || undefined);
    expect(await starting.kill('SIGTERM')).toMatchObject({ code: 0, complaint: '' });
    expect(existsSync(join(home, 'admin.sock'))).toBe(false);

    // The enrolment endpoint of this edge accepts the connection and sends nothing.
    const { server: silent, port } = await listenTcp();
    const connected = once(silent, 'connection');
    const token = withToken(await newToken({ site: 'site-a' }), (json) => {
      json.endpoints = [`https://127.0.0.1:${port}`];
    });
    const edge = startEdge(edgeHome(token));
    const [connection] = (await connected) as [{ destroy(): void }];
    edge.child.kill('SIGTERM');
    await edge.logged(/SIGTERM: shutting down/);
    connection.destroy();
    expect(await edge.ended).toMatchObject({ code: 0, complaint: '' });
    silent.close();
  });

  test('a running gateway that is terminated removes its socket', async () => {
    const home = workspace.newDirectory();
    const path = writeConfig(home, cloudConfig());
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const gateway = new GatewayProcess('cloud', [path]);
      await gateway.logged(/ready/);
      expect(await gateway.kill(signal)).toMatchObject({ code: 0, complaint: '' });
      expect(existsSync(join(home, 'admin.sock'))).toBe(false);
    }
  });
});

/** Changes the content of a token, but not its secret. */
function withToken(token: string, change: (json: { [key: string]: unknown }) => void): string {
  const [prefix, body] = token.split('.') as [string, string];
  const json = JSON.parse(Buffer.from(body, 'base64url').toString()) as Record<string, unknown>;
  change(json);
  return `${prefix}.${Buffer.from(JSON.stringify(json)).toString('base64url')}`;
}

/** Root without the capability may open the device file; an ordinary user often may not. */
const NO_TUN = /TUN.*(CAP_NET_ADMIN|root)|no permission to open \/dev\/net\/tun/;

/** Takes a UDP port of 127.0.0.1, until the socket is closed. */
async function bindUdp(): Promise<{ readonly socket: Socket; readonly port: number }> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  return { socket, port: socket.address().port };
}

/** A command that runs another one without CAP_NET_ADMIN; undefined if there is none. */
function commandWithoutTun(): string[] | undefined {
  if (process.platform !== 'linux') return undefined;
  if (process.getuid?.() !== 0) return [];
  const command = ['setpriv', '--bounding-set=-net_admin', '--inh-caps=-net_admin'];
  return spawnSync(command[0]!, [...command.slice(1), 'true']).status === 0 ? command : undefined;
}

/** A command that runs another one as a user who may read everything here and write nothing. */
function commandAsNobody(): string[] | undefined {
  const command = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups'];
  const read = "require('fs').readFileSync('src/cli/main.ts')";
  const probe = spawnSync(command[0]!, [...command.slice(1), process.execPath, '-e', read]);
  return probe.status === 0 ? command : undefined;
}
