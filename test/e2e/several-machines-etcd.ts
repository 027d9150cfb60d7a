/** A member of etcd on a host of its own, for the scene of `several-machines-scene.ts`. */
import { join } from 'node:path';
import type { Host, Program } from '../support/network.ts';
import { ZONE } from './several-processes-scene.ts';

/** The arguments by which etcd notices the loss of its leader soon. */
export const FAST_ETCD: readonly string[] = ['--heartbeat-interval=50', '--election-timeout=500'];

export class EtcdHost {
  /** `etcd-1` and so on. */
  readonly name: string;
  readonly host: Host;
  /** Its interface of the network between gateways, as the network's bridge has it. */
  readonly wan: string;
  readonly address: string;
  readonly #directory: string;
  readonly #members: string;
  readonly #command: readonly string[];
  readonly #lifetimeSeconds: number;
  #program: Program | undefined;

  /**
   * @param members the names and addresses of all members
   * @param args more arguments of etcd
   */
  constructor(
    which: {
      readonly name: string;
      readonly host: Host;
      readonly wan: string;
      readonly address: string;
      readonly directory: string;
    },
    members: readonly (readonly [name: string, address: string])[],
    args: readonly string[],
    lifetimeSeconds: number
  ) {
    const { name, address, directory } = which;
    this.#directory = directory;
    this.#members = members.map(([each, its]) => `${each}=http://${its}:2380`).join(',');
    this.name = name;
    this.host = which.host;
    this.wan = which.wan;
    this.address = address;
    this.#lifetimeSeconds = lifetimeSeconds;
    this.#command = [
      // The process writes its number, as it is in the namespaces.
      ...['sh', '-c', 'echo $$ >"$0" && exec "$@"', join(directory, `${name}.pid`)],
      ...['etcd', '--name', name, '--data-dir', join(directory, name)],
      ...['--listen-client-urls', `http://${address}:2379,http://127.0.0.1:2379`],
      ...['--advertise-client-urls', `http://${address}:2379`],
      ...['--listen-peer-urls', `http://${address}:2380`],
      ...['--initial-advertise-peer-urls', `http://${address}:2380`],
      ...['--initial-cluster', this.#members],
      ...args,
    ];
  }

  /** Starts it, also after its end, with the data that it has; `ready` says when it serves. */
  start(): void {
    this.#program = this.host.start(this.#command, this.#lifetimeSeconds);
  }

  /** Waits until it serves, which takes a majority of the members. */
  ready(): Promise<void> {
    return this.#program!.printed(/ready to serve client requests/);
  }

  /** Stops it, or lets it go on. */
  async signal(signal: 'STOP' | 'CONT'): Promise<void> {
    await this.host.sh(`kill -${signal} ${await this.#pid()}`);
  }

  /** Kills it. Its data stays. */
  async kill(): Promise<void> {
    await this.host.sh(`kill -KILL ${await this.#pid()}`);
    await this.#program!.ended;
  }

  /** Keeps what there is now, for `restore`. */
  async backUp(): Promise<void> {
    await this.ctl('snapshot', 'save', join(this.#directory, 'backup'));
  }

  /** Replaces the data of this member, which was killed, by that of the backup. */
  async restore(token: string): Promise<void> {
    const data = join(this.#directory, this.name);
    await this.host.sh(`rm -r '${data}'`);
    await this.ctl(
      ...['snapshot', 'restore', join(this.#directory, 'backup'), '--data-dir', data],
      ...['--name', this.name, '--initial-cluster', this.#members],
      ...['--initial-advertise-peer-urls', `http://${this.address}:2380`],
      ...['--initial-cluster-token', token]
    );
  }

  /** Runs `etcdctl` at this member, also while its network is cut. */
  ctl(...args: readonly string[]): Promise<string> {
    return this.host.get(['etcdctl', '--endpoints=http://127.0.0.1:2379', ...args]);
  }

  /** Returns the keys of the cloud that begin with this, without what all keys begin with. */
  async keys(prefix: string): Promise<string[]> {
    const found = await this.ctl('get', '--prefix', '--keys-only', KEYS + prefix);
    return found.split('\n').flatMap((key) => (key === '' ? [] : key.slice(KEYS.length)));
  }

  /** Returns the value of a key of the cloud. */
  async value(key: string): Promise<string> {
    return (await this.ctl('get', '--print-value-only', KEYS + key)).trim();
  }

  /** Forgets all that was before now, so that no watch can go on from there. */
  async compact(): Promise<void> {
    const { header } = JSON.parse(await this.ctl('put', 'compaction', '', '-w', 'json'));
    await this.ctl('compact', `${header.revision}`);
  }

  /** Returns whether the member runs, and says that it leads. */
  async leads(): Promise<boolean> {
    const { exitCode, signalCode } = this.#program!.child;
    if (exitCode !== null || signalCode !== null) return false;
    const [{ Status }] = JSON.parse(await this.ctl('endpoint', 'status', '-w', 'json'));
    return Status.leader === Status.header.member_id;
  }

  #pid(): Promise<string> {
    const file = this.#command[3]!;
    return this.host.sh(`cat '${file}'`).then((text) => text.trim());
  }
}

/** What all keys of the cloud begin with. */
const KEYS = `/vp/${ZONE}/`;
