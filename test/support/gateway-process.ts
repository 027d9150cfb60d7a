/**
 * Gateways as child processes that the command `virtual-presence` runs, on loopback, with UDP devices: no root, no namespaces.
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';
import { type AddressInfo, createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';
import { stringify } from 'yaml';
import type { HostPort } from '../../src/base/host-port.ts';
import type { CloudAddresses, EdgeAddresses } from '../../src/gateway/index.ts';

/** The command that runs a gateway. */
export type Program = 'cloud' | 'edge';

/** How a program ended. */
export interface Ending {
  readonly code: number | null;
  readonly signal: NodeJS.Signals | null;
  /** The text on standard error besides log lines, without the line feed. */
  readonly complaint: string;
  readonly log: readonly string[];
}

export class GatewayProcess {
  readonly child: ChildProcess;
  readonly ended: Promise<Ending>;
  #output = '';
  #onOutput = new Set<() => void>();

  /** @param wrapper a command that starts the program, for example as another user */
  constructor(program: Program, args: readonly string[], wrapper: readonly string[] = []) {
    const command = [...wrapper, ...virtualPresence(), program, ...args];
    this.child = spawn(command[0]!, command.slice(1), { stdio: ['ignore', 'inherit', 'pipe'] });
    running.add(this);
    this.child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.#output += text;
      for (const check of this.#onOutput) check();
    });
    this.ended = new Promise((resolve, reject) => {
      this.child.once('error', reject);
      this.child.once('close', (code, signal) => {
        running.delete(this);
        const lines = this.#output.split('\n').slice(0, -1);
        const complaint = lines.filter((line) => !LOG_LINE.test(line)).join('\n');
        resolve({ code, signal, complaint, log: lines.filter((line) => LOG_LINE.test(line)) });
        for (const check of this.#onOutput) check();
      });
    });
  }

  get output(): string {
    return this.#output;
  }

  /** Waits for a log line that matches, from character `since` of the output on. */
  logged(pattern: RegExp, since = 0): Promise<string> {
    return new Promise((resolve, reject) => {
      const finish = (settle: () => void): void => {
        clearTimeout(timer);
        this.#onOutput.delete(check);
        settle();
      };
      const timer = setTimeout(
        () => finish(() => reject(new Error(`no ${pattern} in the log:\n${this.#output}`))),
        DEADLINE_MS
      );
      const check = (): void => {
        const line = this.#output
          .slice(since)
          .split('\n')
          .find((each) => pattern.test(each));
        if (line !== undefined) finish(() => resolve(line));
        else if (this.child.exitCode !== null || this.child.signalCode !== null) {
          finish(() => reject(new Error(`ended without ${pattern}:\n${this.#output}`)));
        }
      };
      this.#onOutput.add(check);
      check();
    });
  }

  /** Waits until the gateway is ready, and returns where it listens; `T` is `CloudAddresses` for a cloud. */
  async listening<T extends object = EdgeAddresses>(): Promise<T & { readonly dns: HostPort }> {
    const line = await this.logged(/ ready, listening on /);
    return JSON.parse(line.slice(line.indexOf('{'))) as T & { readonly dns: HostPort };
  }

  kill(signal: NodeJS.Signals): Promise<Ending> {
    this.child.kill(signal);
    return this.ended;
  }
}

/**
 * Returns the words that run the command `virtual-presence` in the repository: the bundled one if there is one, or else
 * its source.
 */
export function virtualPresence(): readonly string[] {
  const directory = process.env.VP_BUNDLED_GATEWAYS;
  if (directory !== undefined) return [process.execPath, `${directory}/virtual-presence.mjs`];
  return [process.execPath, '--import', 'tsx', 'src/cli/main.ts'];
}

const running = new Set<GatewayProcess>();

/** Kills all gateways; for `afterAll`. */
export async function killGateways(): Promise<void> {
  await Promise.all([...running].map((gateway) => gateway.kill('SIGKILL')));
}

/** Runs a program until it ends by itself. */
export function outcome(
  program: Program,
  args: readonly string[],
  wrapper?: readonly string[]
): Promise<Ending> {
  return new GatewayProcess(program, args, wrapper).ended;
}

/** Creates directories, which are removed at the end of the test file. */
export class Workspace {
  readonly path: string = mkdtempSync(join(tmpdir(), 'vp-e2e-'));
  #count = 0;

  newDirectory(): string {
    const path = join(this.path, String(this.#count++));
    mkdirSync(path);
    return path;
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** Starts a cloud gateway and waits until it is ready. */
export async function startCloud(
  configPath: string
): Promise<{ readonly process: GatewayProcess; readonly tunnelPort: number }> {
  const process = new GatewayProcess('cloud', [configPath]);
  const { tunnels } = await process.listening<CloudAddresses>();
  return { process, tunnelPort: tunnels[0]!.port };
}

/** Takes a TCP port of 127.0.0.1, until the server is closed. */
export async function listenTcp(): Promise<{ readonly server: Server; readonly port: number }> {
  const server = createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return { server, port: (server.address() as AddressInfo).port };
}

export type Config = Record<string, unknown>;

const ANY_PORT = '127.0.0.1:0';
/** The discard port: no program listens there, and an ordinary user cannot. */
const UDP_DEVICE = { type: 'udp', local: ANY_PORT, peer: '127.0.0.1:9' };

export const REALM = {
  sources: ['10.0.0.0/24'],
  pools: ['10.0.0.128/25'],
  zone: 'openstack.test',
} as const;

/** Returns a valid desired state: the cloud and two sites, one service, one exposure. */
export function desired(): {
  sites: Config[];
  services: Config[];
  exposures: Config[];
} {
  return {
    sites: [
      { name: 'cloud', ...REALM },
      { name: 'site-a', ...REALM },
      { name: 'site-b', ...REALM },
    ],
    services: [
      { name: 'rabbitmq', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672'] },
      { name: 'keystone', site: 'cloud', address: '10.0.0.6', ports: ['tcp/5000'] },
    ],
    exposures: [{ service: 'rabbitmq', site: 'site-a' }],
  };
}

/** Returns the configuration of a cloud gateway that takes free ports. */
export function cloudConfig(): Config {
  return {
    trustDomain: 'openstack.test',
    stateDirectory: './state',
    adminSocket: './admin.sock',
    device: { ...UDP_DEVICE },
    tunnel: ANY_PORT,
    enrolment: {
      listen: ANY_PORT,
      endpoints: [`https://${ANY_PORT}`],
    },
    dns: { listen: ANY_PORT },
    desired: desired(),
  };
}

/** Returns the configuration of an edge gateway that takes free ports. */
export function edgeConfig(cloudTunnel: number): Config {
  return {
    stateDirectory: './state',
    tokenFile: './token',
    cloud: [`127.0.0.1:${cloudTunnel}`],
    device: { ...UDP_DEVICE },
    dns: { listen: ANY_PORT },
  };
}

/** Writes a configuration, as text or as YAML; returns the file's path. */
export function writeConfig(directory: string, config: Config | string): string {
  const path = join(directory, 'gateway.yaml');
  writeFileSync(path, typeof config === 'string' ? config : stringify(config));
  return path;
}

export interface AdminAnswer {
  readonly status: number;
  /** What is answered, or a problem document; empty if there is nothing to answer. */
  readonly body: Record<string, unknown> & { readonly detail?: string; readonly token?: string };
}

/** Sends a request to the admin interface of a cloud gateway. */
export function admin(
  socketPath: string,
  method: string,
  path: string,
  body?: unknown
): Promise<AdminAnswer> {
  const sent = body === undefined ? '' : JSON.stringify(body);
  // Without this header Node sends the body of a DELETE in a form that is not valid HTTP.
  const headers = { 'content-length': Buffer.byteLength(sent) };
  return new Promise((resolve, reject) => {
    const outgoing = request({ socketPath, method, path, headers }, (response) => {
      text(response).then((answer) => {
        const { statusCode: status = 0 } = response;
        resolve({ status, body: answer === '' ? {} : JSON.parse(answer) });
      }, reject);
    });
    outgoing.on('error', reject);
    outgoing.end(sent);
  });
}

/** Calls `attempt` until it returns something; gives up at the deadline. */
export async function eventually<T>(
  what: string,
  attempt: () => Promise<T | undefined> | T | undefined,
  deadlineMs: number = DEADLINE_MS
): Promise<T> {
  const end = Date.now() + deadlineMs;
  for (;;) {
    const answer = await attempt();
    if (answer !== undefined) return answer;
    if (Date.now() >= end) throw new Error(`${what}: not within ${deadlineMs} ms`);
    await delay(20);
  }
}

/** A limit for what takes a second on an idle machine. */
const DEADLINE_MS = 90_000;
const LOG_LINE = /^\d{4}-\d\d-\d\dT[\d:.]+Z /;
