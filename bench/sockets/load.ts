/**
 * The client and the service of a turn, and how much the streams between them carry.
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../../test/support/gateway-process.ts';
import type { Host, Program } from '../../test/support/network.ts';
import { LIFETIME_SECONDS } from '../gateway/contender.ts';
import { cpuSecondsOf } from '../gateway/processes.ts';
import type { ClientCommand, RequestTimes } from './client.ts';
import { SERVICE_PORTS, type ServicePorts } from './contenders.ts';

/** `send`: from the client to the service; `onread`, `data`: to the client, which reads in this way. */
export type StreamKind = 'send' | 'onread' | 'data';

export interface Carried {
  readonly gbps: number;
  /** The CPU time of all processes that were asked about, in s per GiB. */
  readonly cpuSecondsPerGiB: number;
  /** The bytes of each stream. */
  readonly shares: readonly number[];
}

/** A program that answers each line on its standard input by a line of JSON. */
export class Answerer {
  readonly #program: Program;
  #asked: number;

  constructor(program: Program) {
    this.#program = program;
    this.#asked = linesOf(program).length;
  }

  ask<T>(line: string, deadlineMs = 60_000): Promise<T> {
    const index = this.#asked++;
    this.#program.write(`${line}\n`);
    const find = (): T | undefined => {
      const found = linesOf(this.#program)[index];
      if (found !== undefined) return JSON.parse(found) as T;
      if (this.#program.child.exitCode !== null) throw new Error(this.#program.text);
      return undefined;
    };
    return eventually(`an answer to ${line}`, find, deadlineMs).catch((error: Error) => {
      throw new Error(`${error.message} ${this.#program.stderr}`);
    });
  }
}

export class SocketLoad {
  readonly #client: Answerer;
  readonly #service: Answerer;
  readonly #host: string;
  readonly #ports: ServicePorts;

  private constructor(client: Program, service: Program, host: string, ports: ServicePorts) {
    this.#client = new Answerer(client);
    this.#service = new Answerer(service);
    this.#host = host;
    this.#ports = ports;
  }

  /** @param program what `compileService` has made */
  static async startService(
    program: string,
    at: Host,
    { sink, source, answer }: ServicePorts = SERVICE_PORTS
  ): Promise<Program> {
    const words = [sink, source, answer].map(String);
    const service = at.start([program, ...words], LIFETIME_SECONDS);
    await service.printed(/ready\n/);
    return service;
  }

  /** @param host what the client connects to */
  static join(
    client: Program,
    service: Program,
    host: string,
    ports: ServicePorts = SERVICE_PORTS
  ): SocketLoad {
    return new SocketLoad(client, service, host, ports);
  }

  /** Streams that carry as much as they can; what is before the warm-up's end does not count. */
  async streams(options: {
    readonly kind: StreamKind;
    readonly streams: number;
    readonly warmUpMs: number;
    readonly ms: number;
    readonly pids: readonly number[];
  }): Promise<Carried> {
    await this.open(options.kind, options.streams);
    await delay(options.warmUpMs);
    const carried = await this.count(options.ms, options.pids);
    await this.close();
    return carried;
  }

  async open(kind: StreamKind, streams: number): Promise<void> {
    const port = kind === 'send' ? this.#ports.sink : this.#ports.source;
    await this.#command({ do: kind, host: this.#host, port, streams });
  }

  /** Opens connections that stay idle. */
  async openIdle(streams: number): Promise<void> {
    await this.#command({ do: 'idle', host: this.#host, port: this.#ports.answer, streams });
  }

  /** Counts what the open streams carry in this time. */
  async count(ms: number, pids: readonly number[] = []): Promise<Carried> {
    const before = await this.#report();
    const cpuBefore = cpuSecondsOf(pids);
    await delay(ms);
    const after = await this.#report();
    const cpuSeconds = cpuSecondsOf(pids) - cpuBefore;
    if (after.bytes.length !== before.bytes.length) throw new Error('a stream has ended');
    const shares = after.bytes.map((bytes, i) => bytes - before.bytes[i]!);
    const total = shares.reduce((sum, each) => sum + each, 0);
    const gbps = (total * 8) / (after.us - before.us) / 1e3;
    return { gbps, cpuSecondsPerGiB: cpuSeconds / (total / 2 ** 30), shares };
  }

  /** Ends all streams, and waits until the service knows, or ends them there: a reset that is lost is not repeated. */
  async close(): Promise<void> {
    await this.#command({ do: 'close', host: this.#host, port: 0 });
    const isEnded = async () => (await this.#report()).bytes.length === 0 || undefined;
    await eventually('the streams end', isEnded, CLOSE_MS).catch(() => this.#service.ask('!'));
  }

  requests(count: number, ms: number): Promise<RequestTimes> {
    return this.#command({
      do: 'request',
      host: this.#host,
      port: this.#ports.answer,
      count,
      ms,
    });
  }

  #report(): Promise<{ readonly us: number; readonly bytes: readonly number[] }> {
    return this.#service.ask('?');
  }

  #command<T>(command: ClientCommand): Promise<T> {
    return this.#client.ask(JSON.stringify(command), 120_000);
  }
}

/** (sum of x)^2 / (n * sum of x^2): 1 if all are the same, 1/n if one has all. */
export function jainsIndex(shares: readonly number[]): number {
  const sum = shares.reduce((total, each) => total + each, 0);
  const squares = shares.reduce((total, each) => total + each * each, 0);
  return sum ** 2 / (shares.length * squares);
}

const CLOSE_MS = 15_000;

function linesOf({ stdout }: Program): string[] {
  return stdout
    .split('\n')
    .slice(0, -1)
    .filter((line) => line.startsWith('{'));
}
