/**
 * A place of the scene: where programs run, and how they reach the names of their site.
 * @module
 */
import { type ChildProcess, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { eventually, expect } from './report.ts';

export const ZONE = 'openstack.test';
export const REPOSITORY: string = join(import.meta.dirname ?? '.', '../..');

export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

export interface Download {
  readonly isWhole: boolean;
  readonly length: number;
  readonly elapsedMs: number;
  /** When the last data arrived, by the wall clock. */
  readonly lastMs: number;
  readonly longestGapMs: number;
  readonly error?: string;
}

export abstract class Place {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  /** Starts a program. */
  abstract spawn(command: readonly string[], env?: NodeJS.ProcessEnv): ChildProcess;

  /** Resolves a name by the DNS of the site. @throws if it has no address. */
  abstract resolve(name: string): Promise<string>;

  /** Returns the name of an address by the DNS of the site. */
  abstract reverse(address: string): Promise<string>;

  /** Returns the host to which programs that know nothing of gateways connect for a name. */
  abstract reach(name: string): Promise<string>;

  /** Returns the command that gets a page of a name. */
  abstract getCommand(url: string): Promise<string[]>;

  /** Runs a program and waits for its end. */
  async run(command: readonly string[], timeoutMs = 60_000): Promise<Output> {
    const child = this.spawn(command);
    const timer = setTimeout(() => child.kill('SIGKILL'), timeoutMs);
    const output = { stdout: '', stderr: '' };
    child.stdout!.on('data', (chunk: Buffer) => {
      output.stdout += chunk;
    });
    child.stderr!.on('data', (chunk: Buffer) => {
      output.stderr += chunk;
    });
    const [code] = (await once(child, 'close')) as [number | null];
    clearTimeout(timer);
    return { code: code ?? -1, ...output };
  }

  /** Returns the command of one of the programs in `hosts/`. */
  script(name: string, ...args: string[]): string[] {
    const path = join(import.meta.dirname ?? '.', `hosts/${name}.ts`);
    return [process.execPath, '--import', 'tsx', path, ...args];
  }

  /** Starts one of the programs in `hosts/` and waits until it is ready. */
  async start(
    program: string,
    args: readonly string[],
    env?: NodeJS.ProcessEnv
  ): Promise<{ readonly child: ChildProcess; readonly output: () => string }> {
    const child = this.spawn(this.script(program, ...args), env);
    const output = outputOf(child);
    await eventually(`${program} at ${this.name}`, () => {
      if (output().includes('ready\n')) return true;
      if (child.exitCode !== null) throw new Error(output().trim());
      return undefined;
    });
    return { child, output };
  }

  async get(url: string): Promise<string> {
    const { code, stdout, stderr } = await this.run(await this.getCommand(url));
    expect(code === 0, `${url}: ${stderr.trim()}`);
    return stdout;
  }

  /** Connects to a name and returns what the service says. */
  async talk(name: string, port: number): Promise<string> {
    const { code, stdout, stderr } = await this.connect(name, port);
    expect(code === 0 || stderr.includes('connected'), `${name}:${port}: ${stdout.trim()}`);
    return stdout.trim();
  }

  /** Runs the program `connect`. */
  connect(host: string, port: number, ...source: string[]): Promise<Output> {
    return this.run(this.script('connect', host, String(port), ...source));
  }

  /** Starts a download that runs in the background, and gives up after so many seconds without data. */
  async download(
    mebibytes: number,
    patienceSeconds = 2
  ): Promise<{ flows: Promise<unknown>; result: Promise<Download> }> {
    const host = await this.reach(`neutron.${ZONE}`);
    const args = [host, '9697', String(mebibytes), String(patienceSeconds)];
    const child = this.spawn(this.script('download', ...args));
    const output = outputOf(child);
    const ended = new Promise<void>((resolve) => child.once('close', resolve));
    return {
      flows: eventually('data', () => output().includes('flowing') || undefined),
      result: ended.then(() => JSON.parse(output().trim().split('\n').at(-1)!) as Download),
    };
  }
}

export function isInstalled(program: string): boolean {
  return spawnSync('sh', ['-c', `command -v ${program}`]).status === 0;
}

/** Returns the command that gets a page, with what there is on the machine. */
export function httpGet(url: string, ...curlOptions: string[]): string[] {
  if (isInstalled('curl')) return ['curl', '-sS', '--max-time', '5', ...curlOptions, url];
  const program = `fetch(${JSON.stringify(url)}).then((r) => r.text()).then(console.log)`;
  return [process.execPath, '-e', program];
}

/** Checks what dig says about a name. */
export async function checkByDig(
  place: Place,
  server: readonly string[],
  name: string,
  address: string
): Promise<void> {
  const dig = await place.run(['dig', '+short', ...server, name, 'A']);
  expect(dig.stdout.trim() === address, `dig says ${dig.stdout.trim()} instead of ${address}`);
  const empty = await place.run(['dig', ...server, name, 'AAAA']);
  expect(/NOERROR/.test(empty.stdout) && /ANSWER: 0/.test(empty.stdout), 'AAAA is not empty');
}

export function outputOf(child: ChildProcess): () => string {
  let output = '';
  for (const stream of [child.stdout!, child.stderr!]) {
    stream.on('data', (chunk: Buffer) => {
      output += chunk;
    });
  }
  return () => output;
}
