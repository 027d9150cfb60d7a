/**
 * A host of the scene: a network namespace with its own `resolv.conf`. It exists as long as the process that
 * holds the namespace. All processes of hosts end with the scene, because they are in one PID namespace.
 * @module
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { checkByDig, httpGet, isInstalled, Place, REPOSITORY } from './place.ts';
import { eventually, expect } from './report.ts';

const run = promisify(execFile);

export class Host extends Place {
  readonly #holder: ChildProcess;
  #nameserver = '';
  #resolvConf: string | undefined;

  private constructor(name: string, holder: ChildProcess) {
    super(name);
    this.#holder = holder;
  }

  static async create(name: string): Promise<Host> {
    const holder = spawn('unshare', ['--net', 'sleep', 'infinity'], { stdio: 'ignore' });
    const ours = readlinkSync('/proc/self/ns/net');
    await eventually(`network namespace of ${name}`, () =>
      readlinkSync(`/proc/${holder.pid}/ns/net`) === ours ? undefined : true
    );
    const host = new Host(name, holder);
    await host.ip('link', 'set', 'lo', 'up');
    return host;
  }

  get pid(): number {
    return this.#holder.pid!;
  }

  async ip(...args: string[]): Promise<void> {
    await run('nsenter', [`--net=/proc/${this.pid}/ns/net`, 'ip', ...args]);
  }

  /** Connects the host to the peer by a cable (a veth pair). */
  async cable(name: string, peer: Host | undefined, peerName: string): Promise<void> {
    const far = peer === undefined ? '1' : String(peer.pid);
    await run('ip', ['link', 'add', 'vp-a', 'type', 'veth', 'peer', 'name', 'vp-b']);
    await run('ip', ['link', 'set', 'vp-a', 'netns', String(this.pid), 'name', name]);
    if (peer === undefined) await run('ip', ['link', 'set', 'vp-b', 'name', peerName]);
    else await run('ip', ['link', 'set', 'vp-b', 'netns', far, 'name', peerName]);
    await this.ip('link', 'set', name, 'up');
    if (peer === undefined) await run('ip', ['link', 'set', peerName, 'up']);
    else await peer.ip('link', 'set', peerName, 'up');
  }

  /** Makes this address the host's only name server. */
  useNameserver(address: string, directory: string): void {
    this.#nameserver = address;
    this.#resolvConf = join(directory, `${this.name}.resolv.conf`);
    writeFileSync(this.#resolvConf, `nameserver ${address}\noptions timeout:1 attempts:1\n`);
  }

  override spawn(command: readonly string[], env: NodeJS.ProcessEnv = {}): ChildProcess {
    return spawn('nsenter', this.#enter(command), {
      cwd: REPOSITORY,
      env: { ...process.env, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
  }

  /** Resolves a name by libc, as most programs do, and checks it by dig. */
  override async resolve(name: string): Promise<string> {
    const { stdout } = await this.run(['getent', 'ahostsv4', name]);
    const address = stdout.split(/\s+/)[0] ?? '';
    expect(address !== '', `${name} has no address`);
    if (isInstalled('dig')) await checkByDig(this, [`@${this.#nameserver}`], name, address);
    return address;
  }

  override async reverse(address: string): Promise<string> {
    const { stdout } = await this.run(['getent', 'hosts', address]);
    const name = stdout.trim().split(/\s+/)[1];
    expect(name !== undefined, `${address} has no name`);
    return name;
  }

  override async reach(name: string): Promise<string> {
    return name;
  }

  override async getCommand(url: string): Promise<string[]> {
    return httpGet(url);
  }

  #enter(command: readonly string[]): string[] {
    const net = `--net=/proc/${this.pid}/ns/net`;
    if (this.#resolvConf === undefined) return [net, ...command];
    const script = 'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"';
    return [net, 'unshare', '--mount', 'sh', '-c', script, this.#resolvConf, ...command];
  }
}
