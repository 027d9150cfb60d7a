/**
 * Servers of etcd on loopback, each with its data in a directory of its own.
 * @module
 */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { eventually } from './gateway-process.ts';

const PACKAGES = { etcd: 'etcd-server', etcdctl: 'etcd-client', setpriv: 'util-linux' };

/** Why there is no etcd; undefined if there is one. */
export function whyNoEtcd(): string | undefined {
  for (const [program, from] of Object.entries(PACKAGES)) {
    try {
      execFileSync('sh', ['-c', 'test -x "$(command -v "$0")"', program], { stdio: 'ignore' });
    } catch {
      return `${program} is not installed (Debian package ${from})`;
    }
  }
  return undefined;
}

export interface EtcdOptions {
  /** Files for mutual TLS; default: no TLS. */
  readonly tls?: { readonly cert: string; readonly key: string; readonly ca: string };
  /** More arguments. */
  readonly args?: readonly string[];
}

/** One server, which is a cluster alone. Its leases have 1 s or more. */
export class EtcdServer {
  readonly directory: string = mkdtempSync(join(tmpdir(), 'vp-etcd-'));
  readonly #options: EtcdOptions;
  /** Changes when the server is started again. */
  port = 0;
  #child: ChildProcess | undefined;
  #ended: Promise<unknown> = Promise.resolve();

  private constructor(options: EtcdOptions) {
    this.#options = options;
  }

  static async start(options: EtcdOptions = {}): Promise<EtcdServer> {
    const server = new EtcdServer(options);
    await server.start();
    return server;
  }

  /** Starts it with the data that there is, at another port. Another program may take a port meanwhile. */
  async start(): Promise<void> {
    for (let attempt = 0; ; attempt++) {
      const log = await this.#startOnce();
      if (log === undefined) return;
      if (attempt === 5 || !/address already in use/.test(log)) throw new Error(`etcd: ${log}`);
    }
  }

  /** Stops all its threads, and returns when none of them runs. */
  async pause(): Promise<void> {
    const { pid } = this.#child!;
    process.kill(pid!, 'SIGSTOP');
    const states = (): string[] =>
      readdirSync(`/proc/${pid}/task`).map((thread) =>
        readFileSync(`/proc/${pid}/task/${thread}/stat`, 'utf8').replace(/^.*\) (.).*$/s, '$1')
      );
    await eventually('a stopped etcd', () => states().every((state) => state === 'T') || undefined);
  }

  resume(): void {
    this.#child?.kill('SIGCONT');
  }

  /** Kills it and waits for its end. */
  async stop(): Promise<void> {
    this.#child?.kill('SIGKILL');
    await this.#ended;
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.directory, { recursive: true, force: true });
  }

  /** Runs `etcdctl` and returns what it prints. */
  async ctl(...args: readonly string[]): Promise<string> {
    const { tls } = this.#options;
    const scheme = tls === undefined ? 'http' : 'https';
    const files =
      tls === undefined ? [] : [`--cert=${tls.cert}`, `--key=${tls.key}`, `--cacert=${tls.ca}`];
    const { stdout } = await promisify(execFile)(
      'etcdctl',
      [`--endpoints=${scheme}://127.0.0.1:${this.port}`, ...files, ...args],
      { env: { ...process.env, ETCDCTL_API: '3' } }
    );
    return stdout.trim();
  }

  /** Replaces the data by those of a snapshot, as another cluster; the server must have been stopped. */
  async restore(snapshot: string, token: string): Promise<void> {
    rmSync(join(this.directory, 'data'), { recursive: true, force: true });
    await promisify(execFile)(
      'etcdctl',
      [
        ...['snapshot', 'restore', snapshot, `--data-dir=${join(this.directory, 'data')}`],
        ...[`--initial-cluster-token=${token}`, '--name=default'],
        ...['--initial-cluster=default=http://127.0.0.1:1'],
        '--initial-advertise-peer-urls=http://127.0.0.1:1',
      ],
      { env: { ...process.env, ETCDCTL_API: '3' } }
    );
  }

  /** Returns what it has printed if it has ended; undefined if it serves. */
  async #startOnce(): Promise<string | undefined> {
    const [port, peerPort] = await freePorts();
    const { tls, args = [] } = this.#options;
    const scheme = tls === undefined ? 'http' : 'https';
    const url = `${scheme}://127.0.0.1:${port}`;
    const peerUrl = `http://127.0.0.1:${peerPort}`;
    const files =
      tls === undefined
        ? []
        : [
            ...[`--cert-file=${tls.cert}`, `--key-file=${tls.key}`],
            ...['--client-cert-auth', `--trusted-ca-file=${tls.ca}`],
          ];
    const child = spawn(
      'setpriv',
      [
        // It does not outlive a test that is killed.
        ...['--pdeathsig', 'KILL', 'etcd'],
        ...['--data-dir', join(this.directory, 'data'), '--logger=zap', '--log-level=info'],
        ...['--log-outputs=stderr', '--heartbeat-interval=50', '--election-timeout=500'],
        ...[`--listen-client-urls=${url}`, `--advertise-client-urls=${url}`],
        // No other member asks at the peer's port, so the address in the data may be another one.
        ...[`--listen-peer-urls=${peerUrl}`, '--initial-cluster=default=http://127.0.0.1:1'],
        ...['--initial-advertise-peer-urls=http://127.0.0.1:1', ...files, ...args],
      ],
      { stdio: ['ignore', 'ignore', 'pipe'] }
    );
    this.#child = child;
    this.#ended = once(child, 'close');
    let log = '';
    const isReady = new Promise<boolean>((resolve) => {
      child.stderr.setEncoding('utf8').on('data', (text: string) => {
        // What follows the start is read and forgotten.
        if (log.length < 100_000) log += text;
        if (/serving (insecure )?client (requests|traffic)|serving client requests/i.test(log))
          resolve(true);
      });
      child.on('close', () => resolve(false));
    });
    if (!(await isReady)) return log;
    this.port = port;
    return undefined;
  }
}

/** Returns two ports that are free now. */
async function freePorts(): Promise<[number, number]> {
  const servers = [createServer(), createServer()];
  for (const server of servers) {
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
  }
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => promisify(server.close.bind(server))()));
  return ports as [number, number];
}
