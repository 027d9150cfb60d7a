/**
 * docs/several-machines.md, followed as a new operator does: three members of etcd with TLS and users, three machines, a
 * site, and the maintenance. The commands and the files are those of the document; what systemd does is done by hand.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { read } from '../documents/snippets.ts';
import { eventually, killGateways, Workspace } from '../support/gateway-process.ts';
import { Network, whatIsMissing } from '../support/network.ts';
import {
  blockOf,
  CLOUD_FILE,
  command,
  EDGE_FILE,
  forEach,
  GuideScene,
  LIFETIME_SECONDS,
  linesOf,
  MACHINES,
  type MachineName,
  MEMBERS,
} from './several-machines-guide-scene.ts';
import { Transfer, whoami } from './several-processes-scene.ts';

const skipReason = whatIsMissing({
  bash: 'bash',
  etcd: 'etcd-server',
  etcdctl: 'etcd-client',
  openssl: 'openssl',
  setpriv: 'util-linux',
});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

const PORT = 8080;
const EDGE = `
stateDirectory: /var/lib/virtual-presence-edge
tokenFile: /run/credentials/virtual-presence-edge.service/token
device: { type: tun, name: vp0, routes: [10.0.0.128/25], proxyArp: [lan0] }
dns: { listen: 10.0.0.1:53 }
`;

interface ListedMachine {
  readonly name: MachineName;
  readonly isLive: boolean;
  readonly isDraining: boolean;
  readonly sites: number;
}

describe.skipIf(isSkipped)(`the guide to several machines${reason}`, () => {
  let workspace: Workspace | undefined;
  let network: Network | undefined;
  let scene: GuideScene;
  let service: string;

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    workspace = new Workspace();
    network = await Network.create(workspace.newDirectory());
    scene = await GuideScene.create(network, workspace.newDirectory());
  });
  afterAll(async () => {
    await network?.close();
    await killGateways();
    workspace?.remove();
  });

  /** Runs commands where the operator has the files of etcd's CA. */
  const atDesk = (commands: string): Promise<string> => {
    const variables = linesOf(/^export ETCDCTL_API/, /^export/);
    return scene.machines.one.sh(`${variables}${commands}`, scene.desk);
  };
  const list = async (at: MachineName): Promise<readonly ListedMachine[]> => {
    const text = await scene.machines[at].get([...command('machine list'), '--json']);
    return (JSON.parse(text) as { machines: readonly ListedMachine[] }).machines;
  };
  const holder = async (at: MachineName): Promise<MachineName> =>
    (await list(at)).find(({ sites }) => sites === 1)!.name;
  const inUse = async (at: MachineName): Promise<readonly MachineName[]> => {
    const machines = await list(at);
    return machines.flatMap(({ name, isLive, isDraining }) => (isLive && !isDraining ? name : []));
  };
  const otherThan = (name: MachineName): MachineName => MACHINES.find((each) => each !== name)!;

  test('makes certificates for the members and the users of etcd', async () => {
    const certificates = /^openssl req/;
    await atDesk(linesOf(certificates, /CN=etcd CA/));
    await atDesk(forEach(linesOf(certificates, /CN=etcd-1/), 'etcd-1', MEMBERS));
    await atDesk(forEach(linesOf(certificates, /CN=one/), 'one', [...MACHINES, 'root']));
  });

  test('starts three members of etcd', async () => {
    const file = blockOf(/^ETCD_NAME/).split('\n');
    const starting = MEMBERS.map(async (name, index) => {
      const member = scene.members[index]!;
      const own = file.map((line) =>
        line.startsWith('ETCD_INITIAL_CLUSTER=')
          ? line
          : line.replace('192.0.2.11', `192.0.2.1${index + 1}`).replaceAll('etcd-1', name)
      );
      member.write('/etc/default/etcd', own.join('\n'));
      const files = linesOf(/apt install etcd-server/, /install -/).replaceAll('etcd-1', name);
      await member.sh(isRoot ? files : files.replace('-o etcd ', ''), scene.desk);
      const etcd = await scene.startMember(index);
      await etcd.printed(/ready to serve client requests/);
    });
    await Promise.all(starting);
  });

  test('makes users of etcd, and no more can be done without one', async () => {
    for (const line of linesOf(/^export ETCDCTL_API/, /^etcdctl/).split('\n')) {
      const names = MACHINES.map((name) => ` ${name} `);
      await atDesk(/ one /.test(line) ? forEach(`${line}\n`, ' one ', names) : line);
    }
    expect((await atDesk('etcdctl user list')).split('\n')).toEqual(
      expect.arrayContaining([...MACHINES])
    );
    const asTwo = 'ETCDCTL_CERT=two.pem ETCDCTL_KEY=two-key.pem etcdctl get /vp/example.com/meta';
    await expect(atDesk(asTwo)).rejects.toThrow('permission denied');
  });

  test('starts three machines', async () => {
    const yaml = blockOf(/^trustDomain/);
    for (const [index, name] of MACHINES.entries()) {
      const machine = scene.machines[name];
      const address = `198.51.100.${index + 1}`;
      const own = yaml
        .replace('machine: one', `machine: ${name}`)
        .replace('one.pem', `${name}.pem`)
        .replace('tunnel: 198.51.100.1', `tunnel: ${address}`)
        .replace('listen: 198.51.100.1', `listen: ${address}`);
      machine.write(CLOUD_FILE, own);
      machine.write('/etc/virtual-presence/passphrase', 'the same on all machines\n', 0o600);
      const files = linesOf(/one-key.pem \/etc\/virtual-presence/, /install/);
      await machine.sh(files.replaceAll('one', name), scene.desk);
      await scene.startMachine(name);
    }
    await scene.machines.one.get(['config', 'check', CLOUD_FILE]);
    expect((await list('two')).map(({ name, isLive }) => ({ name, isLive }))).toEqual(
      [...MACHINES].sort().map((name) => ({ name, isLive: true }))
    );
  });

  test('takes commands at any machine, and a site reaches a service', async () => {
    const { one, two, three } = scene.machines;
    const program = ['test/e2e/several-processes-host.ts', '10.0.0.5', `${PORT}`, '8081'];
    const listening = scene.service
      .start([process.execPath, '--import', 'tsx', ...program], LIFETIME_SECONDS)
      .printed(/ready/);
    const realm = '--sources 10.0.0.0/24 --pools 10.0.0.128/25 --zone openstack.test';
    await two.get(`site set site-a ${realm}`.split(' '));
    const ports = `--site cloud --address 10.0.0.5 --ports tcp/${PORT}`;
    await one.get(`service set rabbitmq ${ports}`.split(' '));
    await three.get(['expose', 'rabbitmq', 'site-a']);
    const { edge } = scene;
    const token = await three.get(['token', 'create', 'site-a']);
    edge.write('/etc/virtual-presence/token', token, 0o600);
    edge.write(EDGE_FILE, EDGE);
    await edge.startGateway('edge', read('systemd/virtual-presence-edge.service'));
    await listening;
    const names = await scene.client.get(['getent', 'ahostsv4', 'rabbitmq.openstack.test']);
    service = names.split(/\s/)[0]!;
    expect(await whoami(scene.client, service, PORT)).toMatch(/^10\.0\.0\./);
  });

  test('takes a machine out of use for an upgrade under a transfer, and puts it back', async () => {
    const name = await holder('one');
    const machine = scene.machines[name];
    const transfer = new Transfer(scene.client, service);
    await transfer.flows();
    await machine.get(command('machine drain NAME', name));
    expect(await holder(name)).not.toBe(name);
    await transfer.flows();
    await scene.kill(name, 'TERM');
    await scene.startMachine(name);
    expect(await inUse(name)).toEqual([...MACHINES].sort());
    await machine.get(command('machine drain NAME', name));
    expect(await inUse(name)).not.toContain(name);
    await machine.get(command('machine resume NAME', name));
    expect(await inUse(name)).toContain(name);
    await transfer.flows();
    expect(await transfer.end()).toMatchObject({ isWhole: true });
  });

  test('saves a backup', async () => {
    await atDesk(blockOf(/^etcdctl snapshot save/));
    expect(await atDesk('etcdctl snapshot status presence.db')).toMatch(/\w/);
  });

  test('removes a machine that is lost, and its user', async () => {
    const lost = await holder('one');
    const at = otherThan(lost);
    const other = scene.machines[at];
    const words = command('machine remove NAME', lost);
    expect(await other.ask(words)).toMatchObject({
      code: 3,
      text: expect.stringContaining('is alive'),
    });
    await scene.kill(lost, 'KILL');
    await eventually('the site at another machine', async () => {
      const machines = await list(at);
      return machines.find(({ name, sites }) => name !== lost && sites === 1);
    });
    await other.get(words);
    expect((await list(at)).map(({ name }) => name)).not.toContain(lost);
    expect(await whoami(scene.client, service, PORT)).toMatch(/^10\.0\.0\./);
    await atDesk(blockOf(/^etcdctl user delete/).replace('two', lost));
    await expect(scene.startMachine(lost)).rejects.toThrow(/ended without/);
  });
});

const isRoot = process.getuid?.() === 0;
