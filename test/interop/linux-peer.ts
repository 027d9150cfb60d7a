/**
 * A process in the namespace of the thread whose sockets are those of Linux.
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { ExchangeReport, ExchangeSpec } from './exchange.ts';

export interface PeerOrder {
  readonly id: number;
  readonly host: string;
  /** 0: to listen. */
  readonly port: number;
  readonly spec: ExchangeSpec;
}

export interface PeerAnswer {
  /** 0: the process is ready. */
  readonly id: number;
  /** Where it listens. */
  readonly port?: number;
  readonly report?: ExchangeReport;
  /** What the exchange cost the process, the kernel's part included. */
  readonly cpuMs?: number;
  readonly error?: string;
}

export interface PeerReport extends ExchangeReport {
  readonly cpuMs: number;
}

export class LinuxPeer {
  /** @param prefix a command that runs another one, for example in another namespace */
  static async start(prefix: readonly string[] = []): Promise<LinuxPeer> {
    const [command, ...args] = [...prefix, process.execPath, '--import', 'tsx', PROGRAM];
    const child = spawn(command!, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const peer = new LinuxPeer(child);
    await new Promise<void>((resolve, reject) => {
      peer.#waiting.set(0, () => resolve());
      child.once('error', reject);
      child.once('exit', () => reject(new Error('the peer has ended')));
    });
    return peer;
  }

  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (answer: PeerAnswer) => void>();
  #lastId = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    child.on('message', (answer: PeerAnswer) => this.#waiting.get(answer.id)?.(answer));
  }

  connect(host: string, port: number, spec: ExchangeSpec): Promise<PeerReport> {
    return this.#order(host, port, spec, () => {});
  }

  /** Listens on this address and takes one connection. */
  async listen(
    host: string,
    spec: ExchangeSpec
  ): Promise<{ readonly port: number; readonly report: Promise<PeerReport> }> {
    let report: Promise<PeerReport>;
    const port = await new Promise<number>((resolve, reject) => {
      report = this.#order(host, 0, spec, resolve);
      report.catch(reject);
    });
    return { port, report: report! };
  }

  close(): void {
    this.#child.disconnect();
  }

  #order(
    host: string,
    port: number,
    spec: ExchangeSpec,
    onPort: (port: number) => void
  ): Promise<PeerReport> {
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, ({ port: bound, report, cpuMs = 0, error }) => {
        if (bound !== undefined) onPort(bound);
        else if (report !== undefined) resolve({ ...report, cpuMs });
        else reject(new Error(`the Linux end: ${error}`));
      });
      this.#child.send({ id, host, port, spec } satisfies PeerOrder);
    });
  }
}

const PROGRAM: string = fileURLToPath(new URL('linux-peer-child.ts', import.meta.url));
