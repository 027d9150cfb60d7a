/**
 * A network of its own for a test: hosts are network namespaces, and all their programs run in one PID
 * namespace that ends with the test, however that ends. Needs root, or permission to create user namespaces.
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { eventually } from './gateway-process.ts';

export interface Output {
  /** 124 if the program did not end in time. */
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Standard output and standard error, for messages. */
  readonly text: string;
}

/** Returns why no network can be created here; undefined if one can. */
export function whatIsMissing(programs: Readonly<Record<string, string>>): string | undefined {
  if (process.platform !== 'linux') return 'namespaces and TUN need Linux';
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch {
    return '/dev/net/tun is not there, or this user may not open it';
  }
  const needed = { unshare: 'util-linux', nsenter: 'util-linux', ip: 'iproute2', ...programs };
  for (const [program, from] of Object.entries(needed)) {
    try {
      execFileSync('sh', ['-c', 'test -x "$(command -v "$0")"', program], { stdio: 'ignore' });
    } catch {
      return `${program} is not installed (Debian package ${from})`;
    }
  }
  try {
    execFileSync('unshare', [...NEW_NAMESPACES, 'true'], { stdio: 'pipe' });
  } catch (error) {
    const { stderr } = error as { stderr?: Buffer };
    return `this system forbids new namespaces: ${String(stderr).trim()}`;
  }
  return undefined;
}

/** A network namespace, and the programs that run in it. */
export class Host {
  readonly name: string;
  /** The pid of the process that holds the namespaces, as this process sees it. */
  readonly pid: number;

  constructor(name: string, pid: number) {
    this.name = name;
    this.pid = pid;
  }

  /** Returns the words to put before a command so that it runs here, in the repository. */
  get wrapper(): readonly string[] {
    return [...enter(this.pid, '--mount', '--net', '--pid'), 'env', `--chdir=${REPOSITORY}`];
  }

  /** Starts a program, which is killed when its time is up. */
  start(command: readonly string[], seconds: number = 60): Program {
    return new Program([...this.wrapper, ...limited(seconds), ...command]);
  }

  /** Runs a program to its end. */
  run(command: readonly string[], seconds: number = 60): Promise<Output> {
    const program = this.start(command, seconds);
    program.child.stdin!.end();
    return program.ended;
  }

  /** Runs a program that must not fail; returns its output. */
  async get(command: readonly string[], seconds?: number): Promise<string> {
    const { code, stdout, text } = await this.run(command, seconds);
    if (code !== 0) throw new Error(`${this.name}: ${command.join(' ')}: ${code}\n${text}`);
    return stdout;
  }

  /** Runs a shell script that ends at its first failure. */
  sh(script: string): Promise<string> {
    return this.get(['sh', '-ec', script]);
  }
}

/** A program that runs on a host. */
export class Program {
  readonly child: ChildProcess;
  readonly ended: Promise<Output>;
  #stdout = '';
  #stderr = '';

  constructor(command: readonly string[]) {
    this.child = spawn(command[0]!, command.slice(1), { stdio: ['pipe', 'pipe', 'pipe'] });
    this.child.stdin!.on('error', () => {});
    this.child.stdout!.setEncoding('latin1').on('data', (text: string) => {
      this.#stdout += text;
    });
    this.child.stderr!.setEncoding('latin1').on('data', (text: string) => {
      this.#stderr += text;
    });
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code) => {
        const { stdout, stderr, text } = this;
        resolve({ code, stdout, stderr, text });
      });
    });
  }

  get stdout(): string {
    return this.#stdout;
  }

  get stderr(): string {
    return this.#stderr;
  }

  get text(): string {
    return `${this.#stdout}${this.#stderr}`;
  }

  write(text: string): void {
    this.child.stdin!.write(text, 'latin1');
  }

  /** Waits until the output matches. */
  async printed(pattern: RegExp, deadlineMs: number = 90_000): Promise<void> {
    const { child } = this;
    await eventually(
      `${pattern} of ${child.spawnargs.join(' ')}`,
      () => {
        if (pattern.test(this.text)) return true;
        if (child.exitCode !== null) throw new Error(`ended without ${pattern}:\n${this.text}`);
        return undefined;
      },
      deadlineMs
    ).catch((error: Error) => {
      throw new Error(`${error.message}\n${this.text}`);
    });
  }
}

export class Network {
  /** The namespace of cables without a host at that end: the network between gateways. */
  readonly root: Host;
  readonly #directory: string;
  readonly #holders: ChildProcess[];

  private constructor(directory: string, root: Host, holder: ChildProcess) {
    this.#directory = directory;
    this.root = root;
    this.#holders = [holder];
  }

  /** @param directory a directory for the files of the network */
  static async create(directory: string): Promise<Network> {
    const holder = await startHolder(['unshare', ...NEW_NAMESPACES]);
    const network = new Network(directory, new Host('root', childOf(holder)), holder);
    return network;
  }

  /** Creates a host without cables. It uses this name server only, if there is one. */
  async newHost(name: string, nameServer: string | undefined): Promise<Host> {
    const resolvConf = join(this.#directory, `${name}.resolv.conf`);
    const servers = nameServer === undefined ? '' : `nameserver ${nameServer}\n`;
    writeFileSync(resolvConf, `${servers}options timeout:5 attempts:3\n`);
    const script = 'mount --bind "$0" "$(readlink -f /etc/resolv.conf)" && exec "$@"';
    const holder = await startHolder([
      ...enter(this.root.pid, '--mount', '--net', '--pid'),
      ...['unshare', '--net', '--mount', 'sh', '-c', script, resolvConf],
    ]);
    this.#holders.push(holder);
    const host = new Host(name, childOf(holder));
    await host.sh(`
      ip link set lo up
      # As many ICMP errors as are due, not one a second.
      echo 0 >/proc/sys/net/ipv4/icmp_ratelimit
      echo 0 >/proc/sys/net/ipv6/icmp/ratelimit
      # Addresses that can be used at once.
      echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad
    `);
    return host;
  }

  /** Connects two hosts; the interfaces get these names. */
  async cable(host: Host, end: string, other: Host, otherEnd: string): Promise<void> {
    // This runs outside the PID namespace, because the pids are those of this process.
    const program = new Program([
      ...enter(this.root.pid, '--net'),
      ...['ip', 'link', 'add', end, 'netns', String(host.pid), 'type', 'veth'],
      ...['peer', 'name', otherEnd, 'netns', String(other.pid)],
    ]);
    const { code, text } = await program.ended;
    if (code !== 0) throw new Error(`no cable from ${host.name} to ${other.name}: ${text}`);
    await Promise.all([host.sh(`ip link set ${end} up`), other.sh(`ip link set ${otherEnd} up`)]);
  }

  /** Kills every program of the network, which ends the network. */
  async close(): Promise<void> {
    const ends = this.#holders.map((holder) => ended(holder));
    this.#holders[0]!.kill('SIGKILL');
    await Promise.all(ends);
  }
}

/**
 * Starts a process that keeps its namespaces until it is killed or this process ends, which
 * closes its standard input.
 */
async function startHolder(command: readonly string[]): Promise<ChildProcess> {
  const [program, ...args] = [...command, 'sh', '-c', 'echo ready && exec cat'];
  const holder = spawn(program!, args, { stdio: ['pipe', 'pipe', 'pipe'] });
  holder.stdin!.on('error', () => {});
  let said = '';
  holder.stderr!.on('data', (chunk) => {
    said += chunk;
  });
  const isReady = await Promise.race([
    once(holder.stdout!, 'data').then(() => true),
    ended(holder).then(() => false),
  ]);
  if (!isReady) throw new Error(`${command.join(' ')}: ${said.trim()}`);
  return holder;
}

async function ended(child: ChildProcess): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** Returns the pid of a process's only child. */
function childOf({ pid }: ChildProcess): number {
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1');
      // pid (name) state ppid
      if (Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]) === pid) return Number(name);
    } catch {
      // the process has ended in the meantime
    }
  }
  throw new Error(`process ${pid} has no child`);
}

/** Returns a command that runs another one in these namespaces of a process. */
function enter(pid: number, ...namespaces: string[]): string[] {
  const user = isRoot ? [] : ['--user', '--preserve-credentials'];
  return ['nsenter', '--target', String(pid), ...user, ...namespaces];
}

function limited(seconds: number): string[] {
  return ['timeout', '--kill-after=1', String(seconds)];
}

const isRoot = process.getuid?.() === 0;
const REPOSITORY: string = fileURLToPath(new URL('../..', import.meta.url));
const NEW_NAMESPACES: readonly string[] = [
  ...(isRoot ? [] : ['--user', '--map-root-user']),
  ...['--net', '--mount', '--pid', '--fork', '--kill-child', '--mount-proc'],
];
