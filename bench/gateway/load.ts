/**
 * The load of `load.c` and of iperf3, at the client and the service of a scene.
 * @module
 */
import { join } from 'node:path';
import { eventually } from '../../test/support/gateway-process.ts';
import type { Host, Program } from '../../test/support/network.ts';
import { compileC } from './compile.ts';
import { LIFETIME_SECONDS, PORTS } from './contender.ts';

/** Times of many samples, in µs. */
export interface Times {
  readonly p50Us: number;
  readonly p99Us: number;
  readonly count: number;
}

export interface Bulk {
  readonly gbps: number;
  readonly receivedBytes: number;
}

export interface Datagrams {
  /** A second. */
  readonly offered: number;
  readonly received: number;
  /** Share of those sent that did not arrive. */
  readonly loss: number;
}

export interface BulkOptions {
  readonly seconds: number;
  readonly streams?: number;
  /** Whether the data goes from the service to the client. */
  readonly isReverse?: boolean;
}

/** Compiles `load.c`; returns the path of the program. */
export function compileLoad(directory: string): string {
  return compileC(join(import.meta.dirname, 'load.c'), directory);
}

/** Both ends of the load in one scene. */
export class Load {
  readonly #program: string;
  readonly #client: Host;
  readonly #address: string;
  readonly #server: Program;
  #answers = 0;

  private constructor(program: string, client: Host, address: string, server: Program) {
    this.#program = program;
    this.#client = client;
    this.#address = address;
    this.#server = server;
  }

  /** @param address by which the client reaches the service */
  static async start(program: string, client: Host, service: Host, address: string): Promise<Load> {
    const ports = [PORTS.echo, PORTS.answer, PORTS.datagrams].map(String);
    const server = service.start([program, 'serve', ...ports], LIFETIME_SECONDS);
    await server.printed(/ready\n/);
    const iperf = service.start(
      ['iperf3', '-s', '-p', String(PORTS.iperf), '--forceflush'],
      LIFETIME_SECONDS
    );
    await iperf.printed(/Server listening/);
    return new Load(program, client, address, server);
  }

  /** 64 bytes there and back in one TCP connection, at most `count` times and for at most `ms`. */
  pingPong(count: number, ms: number): Promise<Times> {
    return this.#run('ping-pong', PORTS.echo, count, ms);
  }

  /** TCP connections with one request and its answer. */
  connections(count: number, ms: number): Promise<Times> {
    return this.#run('connect', PORTS.answer, count, ms);
  }

  /** TCP streams as fast as they go. */
  async bulk({ seconds, streams = 1, isReverse = false }: BulkOptions): Promise<Bulk> {
    const output = await this.#client.get(
      [
        ...['iperf3', '-J', '-c', this.#address, '-p', String(PORTS.iperf)],
        ...['-t', String(seconds), '-P', String(streams), ...(isReverse ? ['-R'] : [])],
      ],
      seconds + 10
    );
    const { end } = JSON.parse(output) as IperfReport;
    return { gbps: end.sum_received.bits_per_second / 1e9, receivedBytes: end.sum_received.bytes };
  }

  /** The same as `pingPong` while one bulk stream runs. */
  async loadedPingPong(count: number, ms: number): Promise<Times> {
    const seconds = Math.ceil(ms / 1000) + 1;
    const stream = this.#client.start(
      [
        ...['iperf3', '-c', this.#address, '-p', String(PORTS.iperf)],
        ...['-t', String(seconds), '--forceflush'],
      ],
      seconds + 10
    );
    await stream.printed(/connected to/);
    const times = await this.pingPong(count, ms);
    const { code, text } = await stream.ended;
    if (code !== 0) throw new Error(`the bulk stream failed: ${text}`);
    return times;
  }

  /** Datagrams of 64 bytes at a rate; 0: as many as the client can. */
  async datagrams(rate: number, ms: number): Promise<Datagrams> {
    const port = String(PORTS.datagrams);
    const command = [this.#program, 'udp', this.#address, port, String(rate), String(ms)];
    const sender = await this.#client.get(command, ms / 1000 + 10);
    const { sent, seconds } = JSON.parse(sender) as { sent: number; seconds: number };
    const received = await this.#received();
    return { offered: sent / seconds, received: received / seconds, loss: 1 - received / sent };
  }

  /** Asks how many datagrams have come since it was asked last. */
  #received(): Promise<number> {
    const index = this.#answers++;
    this.#server.write('count\n');
    return eventually('a count of datagrams', () => {
      const answer = [...this.#server.stdout.matchAll(/\{.*\}\n/g)][index];
      if (answer !== undefined) return (JSON.parse(answer[0]) as { received: number }).received;
      if (this.#server.child.exitCode !== null) throw new Error(this.#server.text);
      return undefined;
    });
  }

  async #run(what: string, port: number, count: number, ms: number): Promise<Times> {
    const words = [what, this.#address, port, count, ms].map(String);
    return JSON.parse(await this.#client.get([this.#program, ...words], ms / 1000 + 10)) as Times;
  }
}

/** The parts of iperf3's report that are used. */
interface IperfReport {
  readonly end: {
    readonly sum_received: { readonly bytes: number; readonly bits_per_second: number };
  };
}
