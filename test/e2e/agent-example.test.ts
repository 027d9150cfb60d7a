/**
 * `examples/agent` as a process, with a cloud gateway that has sockets, and real services of this machine: RabbitMQ, a
 * REST service in the place of neutron, and a Python program beside the agent. Nothing here needs root.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { hostname, tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { CloudGateway } from '../../src/gateway/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';

const REPOSITORY = fileURLToPath(new URL('../..', import.meta.url));
const BROKER = '/usr/lib/rabbitmq/bin/rabbitmq-server';
const PYTHON = '/usr/bin/python3';
const run = promisify(execFile);
const WAIT = { timeout: 60_000, interval: 50 };

/** An address of loopback that no other copy of this test has, and a zone whose names no other copy has. */
const NUMBER = process.pid & 0xffff;
const SERVICES = `127.${90 + (NUMBER % 10)}.${NUMBER >>> 8}.${NUMBER & 255 || 1}`;
const ZONE = `c${process.pid}.test`;

const missing =
  [BROKER, PYTHON].find((path) => !existsSync(path)) ??
  // A RabbitMQ that listens at all addresses has the port of the service, and of the published address.
  ((await answers(5672)) ? 'a free port 5672' : undefined);
const isSkipped = missing !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: needs ${missing})` : '';

/** Whether somebody listens at this port of the services' address. */
function answers(port: number): Promise<boolean> {
  const socket = connect(port, SERVICES);
  return new Promise((resolve) => {
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
  }).finally(() => socket.destroy()) as Promise<boolean>;
}

describe.skipIf(isSkipped)(`an agent beside nova-compute${reason}`, () => {
  const directory = mkdtempSync(join(tmpdir(), 'vp-agent-'));
  const state = join(directory, 'agent');
  const children: ChildProcess[] = [];
  const neutron = createServer((request, response) => {
    response.end(JSON.stringify({ path: request.url, client: request.socket.remoteAddress }));
  });
  let cloud: CloudGateway;
  let agent: ChildProcess;
  let log = '';

  function start(command: readonly string[], env: NodeJS.ProcessEnv): ChildProcess {
    const child = spawn(command[0]!, command.slice(1), {
      cwd: REPOSITORY,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    children.push(child);
    return child;
  }

  /** Starts RabbitMQ at port 5672 of the services' address; resolves when it listens. */
  async function startBroker(): Promise<void> {
    const home = join(directory, 'rabbitmq');
    const plugins = `${home}.plugins`;
    writeFileSync(plugins, '[].\n');
    writeFileSync(
      `${home}.conf`,
      `listeners.tcp.default = ${SERVICES}:5672\nloopback_users = none\nlog.console = true\nlog.file = false\n`
    );
    const node = `vp-${process.pid}@localhost`;
    // Where distribution runs already, RabbitMQ looks for neither epmd nor a free port at all addresses.
    const distribution = [
      ...['-sname', node, '-start_epmd', 'false', '-erl_epmd_port', '25672'],
      ...['-kernel', 'inet_dist_use_interface', `{${SERVICES.replaceAll('.', ',')}}`],
    ];
    const broker = start([BROKER], {
      HOME: directory,
      // The server itself takes the place of the script that starts it.
      RABBITMQ_ALLOW_INPUT: '1',
      RABBITMQ_NODENAME: node,
      RABBITMQ_CONFIG_FILE: `${home}.conf`,
      RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
      RABBITMQ_MNESIA_BASE: `${home}.mnesia`,
      RABBITMQ_LOG_BASE: `${home}.log`,
      RABBITMQ_PID_FILE: `${home}.pid`,
      // A file of its own in place of one in the working directory.
      ERL_CRASH_DUMP: `${home}.crash`,
      RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `-noinput +S 1:1 +sbwt none ${distribution.join(' ')}`,
    });
    let output = '';
    for (const stream of [broker.stdout!, broker.stderr!]) {
      stream.on('data', (chunk) => {
        output += chunk;
      });
    }
    await vi.waitFor(() => expect(output).toContain('Server startup complete'), WAIT);
  }

  /** Sends a request to the agent by the broker itself, as nova-conductor does. */
  async function call(): Promise<unknown> {
    const controller = join(REPOSITORY, 'examples/two-sites/hosts/controller.ts');
    const url = `amqp://guest:guest@${SERVICES}:5672`;
    const args = ['--import', 'tsx', controller, url, `compute.${hostname()}`];
    const { stdout } = await run(process.execPath, args, { cwd: REPOSITORY });
    return JSON.parse(stdout);
  }

  const linesOf = (pattern: RegExp): number =>
    log.split('\n').filter((it) => pattern.test(it)).length;

  beforeAll(async () => {
    if (missing !== undefined) throw new Error(`needs ${missing}`);
    neutron.listen(9696, SERVICES);
    await Promise.all([once(neutron, 'listening'), startBroker()]);
    const lan = { sources: ['10.0.0.0/24', '127.0.0.0/8'], pools: ['10.0.0.128/25'], zone: ZONE };
    cloud = await CloudGateway.start({
      trustDomain: 'example.test',
      tunnel: '127.0.0.1:0',
      device: { type: 'sockets', address: '10.0.0.1' },
      store: new MemoryStore(),
      secrets: new MemorySecrets(),
      desired: {
        sites: ['cloud', 'site-a'].map((name) => ({ name, ...lan })),
        services: [
          { name: 'rabbitmq', site: 'cloud', address: SERVICES, ports: ['tcp/5672'] },
          { name: 'neutron', site: 'cloud', address: SERVICES, ports: ['tcp/9696'] },
          { name: 'console', site: 'site-a', address: '10.0.0.1', ports: ['tcp/6080'] },
        ],
        exposures: [
          { service: 'rabbitmq', site: 'site-a' },
          { service: 'neutron', site: 'site-a' },
          { service: 'console', site: 'cloud' },
        ],
      },
    });
    const token = await cloud.createToken({ site: 'site-a' });
    const program = ['--import', 'tsx', 'examples/agent/main.ts', state];
    agent = start([process.execPath, ...program], { VP_TOKEN: token });
    agent.stderr!.on('data', (chunk) => {
      log += chunk;
    });
    await vi.waitFor(() => expect(log).toMatch(/waiting for requests/), WAIT);
  }, 120_000);

  afterAll(async () => {
    await cloud?.close();
    neutron.close();
    for (const child of children) child.kill('SIGKILL');
    await Promise.all(children.map((it) => it.exitCode ?? it.signalCode ?? once(it, 'close')));
    rmSync(directory, { recursive: true, force: true });
  });

  test('is shorter than 60 lines', () => {
    const source = readFileSync(join(REPOSITORY, 'examples/agent/main.ts'), 'utf8');
    expect(source.trim().split('\n').length).toBeLessThan(60);
  });

  test('answers a request that comes by RabbitMQ with what neutron says', async () => {
    expect(await call()).toEqual({ path: '/v2.0/networks', client: '127.0.0.1' });
    const { sockets } = await cloud.status();
    // One of amqplib, one of fetch.
    expect(sockets['backend.tcp.connected']).toBe(2);
  });

  test('serves its console to the cloud', async () => {
    const socket = cloud.sockets.connect(6080, 'console');
    expect(await text(socket)).toBe(`console of ${hostname()}\n`);
  });

  test('lets a Python program reach neutron by the published address', async () => {
    const hosts = readFileSync(join(state, 'hosts'), 'utf8');
    expect(hosts).toMatch(/^127\.64\.\d+\.\d+\tneutron\./m);
    expect(hosts).toMatch(/^127\.64\.\d+\.\d+\trabbitmq\./m);
    const { stdout } = await run(PYTHON, ['-c', PROGRAM, join(state, 'hosts'), `neutron.${ZONE}`]);
    expect(JSON.parse(stdout)).toEqual({ path: '/v2.0/ports', client: '127.0.0.1' });
  });

  test('connects to RabbitMQ again when its connection has ended', async () => {
    const before = linesOf(/waiting for requests/);
    await cloud.unexpose({ service: 'rabbitmq', site: 'site-a' });
    // It tries, and the name is unknown.
    const hosts = (): string => readFileSync(join(state, 'hosts'), 'utf8');
    await vi.waitFor(() => expect(hosts()).not.toContain('rabbitmq'), WAIT);
    const failures = linesOf(/Error/);
    await vi.waitFor(() => expect(linesOf(/Error/)).toBeGreaterThan(failures), WAIT);
    await cloud.expose({ service: 'rabbitmq', site: 'site-a' });
    await vi.waitFor(() => expect(linesOf(/waiting for requests/)).toBe(before + 1), WAIT);
    expect(await call()).toMatchObject({ path: '/v2.0/networks' });
  });

  test('ends by SIGTERM with exit code 0', async () => {
    agent.kill('SIGTERM');
    expect(await once(agent, 'close')).toEqual([0, null]);
  });
});

/** Looks the name up in a file as /etc/hosts, and asks neutron. */
const PROGRAM = `
import http.client, sys
path, name = sys.argv[1:]
address = next(line.split()[0] for line in open(path) if line.split()[1] == name)
connection = http.client.HTTPConnection(address, 9696, timeout=30)
connection.request('GET', '/v2.0/ports')
print(connection.getresponse().read().decode())
`;
