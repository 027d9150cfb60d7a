/**
 * Programs that know nothing of this library, through the agent's proxy, its forwards and its published addresses: curl,
 * scp and a Python program with RabbitMQ. The services are behind a cloud gateway that needs no root.
 */
import { createHash } from 'node:crypto';
import { createReadStream, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { afterAll, beforeAll, describe, expect, onTestFinished, test } from 'vitest';
import { loopbackAddress, RootlessScene, run, whatTheSceneMisses, ZONE } from './rootless-scene.ts';
import {
  PYTHON,
  RABBIT_PORT,
  RABBITMQ,
  SSH_PORT,
  sshOptions,
  startRabbit,
  startSsh,
  startWeb,
  WEB_PORT,
  whatPythonMisses,
  whatSshMisses,
} from './rootless-servers.ts';
import { testData } from './test-data.ts';

const skipReason =
  whatTheSceneMisses({
    curl: 'curl',
    [PYTHON]: 'python3',
    [RABBITMQ]: 'rabbitmq-server',
    '/usr/sbin/sshd': 'openssh-server',
    scp: 'openssh-client',
    socat: 'socat',
    unshare: 'util-linux',
  }) ?? whatPythonMisses();
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

const isWithoutSsh = whatSshMisses() !== undefined && process.env.CI === undefined;
const sshReason = isWithoutSsh ? ` (skipped: ${whatSshMisses()})` : '';

const LENGTH = 100 << 20;

describe.skipIf(isSkipped)(`programs through an agent${reason}`, () => {
  let scene: RootlessScene;
  /** A file of `LENGTH`, and the hash of what is in it. */
  let file: string;
  let hash: string;

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    const services = [`web=${WEB_PORT}`, `files=${SSH_PORT}`, `rabbit=${RABBIT_PORT}`];
    scene = await RootlessScene.start(services, async (it) => {
      file = join(it.newDirectory('data'), 'data');
      const data = testData(LENGTH);
      writeFileSync(file, data);
      hash = createHash('sha256').update(data).digest('hex');
      await Promise.all([startWeb(it, 'data'), startRabbit(it), isWithoutSsh || startSsh(it)]);
    });
  });
  afterAll(() => scene?.close());

  test.each(['socksUrl', 'httpUrl'] as const)('curl gets 100 MiB through %s', async (url) => {
    const proxy = await scene.agent.sockets.proxy(0);
    onTestFinished(() => proxy.close());
    const got = join(scene.directory, url);
    const config = [
      `proxy = ${proxy[url]}`,
      'proxytunnel',
      `url = http://web.${ZONE}:${WEB_PORT}/data`,
      `output = ${got}`,
    ].join('\n');
    // The password would be seen in the command line.
    const curl = ['curl', '--silent', '--show-error', '--fail', '--config', '-'];
    await scene.seeAtTunnel(0, LENGTH, () => run(curl, config));
    expect(await hashOf(got)).toBe(hash);
    expect(proxy.counters.connected).toBe(1);
  });

  const scpTitle = `scp copies 100 MiB there through a forwarded port, and back through a unix socket${sshReason}`;
  test.skipIf(isWithoutSsh)(scpTitle, async () => {
    const files = { host: `files.${ZONE}`, port: SSH_PORT };
    const port = await scene.agent.sockets.forward(0, files);
    onTestFinished(() => port.close());
    const path = join(scene.directory, 'ssh.sock');
    const unix = await scene.agent.sockets.forward({ path }, files);
    onTestFinished(() => unix.close());
    const [there, back] = ['there', 'back'].map((name) => join(scene.directory, name));

    const scp = ['scp', '-q', ...sshOptions(scene)];
    const number = (port.address as { port: number }).port;
    await scene.seeAtTunnel(LENGTH, 0, () =>
      run([...scp, '-P', String(number), file, `127.0.0.1:${there}`])
    );
    expect(await hashOf(there!)).toBe(hash);
    const through = ['-o', `ProxyCommand=socat - UNIX-CONNECT:${path}`];
    await scene.seeAtTunnel(0, LENGTH, () =>
      run([...scp, ...through, `files.${ZONE}:${there}`, back!])
    );
    expect(await hashOf(back!)).toBe(hash);
    expect([port.counters.accepted, unix.counters.accepted]).toEqual([1, 1]);
  });

  test('a Python program publishes and consumes at the published address of RabbitMQ', async () => {
    const publication = await scene.agent.sockets.publish({ loopback: `${loopbackAddress(0)}/30` });
    onTestFinished(() => publication.close());
    const rabbit = publication.entries().find(({ name }) => name === `rabbit.${ZONE}`);
    expect(rabbit).toMatchObject({ ports: [RABBIT_PORT], notPublished: [] });
    const at = `${rabbit!.loopback}:${RABBIT_PORT}`;
    const large = readFileSync(file).subarray(0, 4 << 20);
    const program = [PYTHON, 'test/e2e/rootless-amqp.py', at, file];
    const output = await scene.seeAtTunnel(large.length, large.length, () => run(program));
    expect(output.trim().split('\n')).toEqual([
      '1000 in order',
      createHash('sha256').update(large).digest('hex'),
    ]);
  });
});

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}
