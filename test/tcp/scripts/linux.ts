/**
 * The kernel as the subject of scripts. All scripts run at the same time, in one network namespace and over one TUN;
 * each has a far address and a port of its own, by which its packets are found.
 *
 * The kernel handles a packet within the write(2) to the TUN: what it answers at once can be read directly after.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import type { Family } from '../../../src/base/address.ts';
import { LinuxTun } from '../../../src/device/index.ts';
import { plainText } from '../../support/address.ts';
import { ip } from '../../support/namespace.ts';
import { framed, VNET } from '../../support/vnet.ts';
import { KernelSockets } from './kernel-sockets.ts';
import type { CallName } from './script.ts';
import type { Outcome, Place, Sent, StreamContent, Subject } from './subject.ts';
import { routeOf } from './wire.ts';

/** The namespace of the calling thread, set up for scripts. */
export class LinuxHost {
  /** @throws {EnvironmentError} if there is no TUN. Needs a namespace of its own, and root. */
  static async open(): Promise<LinuxHost> {
    // An older kernel lacks what newer ones must be told not to do.
    const settings = Object.entries(SETTINGS)
      .filter(([name]) => existsSync(`/proc/sys/net/ipv4/${name}`))
      .map(([name, value]) => `net.ipv4.${name}=${value}`);
    execFileSync('sysctl', ['-qw', ...settings]);
    // The device takes any packet; the routes have the MTU of an Ethernet, with an MSS of 1460 in both IP versions.
    const tun = await LinuxTun.open({ name: 'script%d', mtu: 65_535, offload: false });
    execFileSync('sysctl', [
      '-qw',
      `net.ipv6.conf.${tun.name}.disable_ipv6=0`,
      `net.ipv6.conf.${tun.name}.accept_dad=0`,
      `net.ipv6.conf.${tun.name}.router_solicitations=0`,
    ]);
    ip('address', 'add', `${LOCAL[4]}/32`, 'dev', tun.name);
    ip('address', 'add', `${LOCAL[6]}/128`, 'dev', tun.name, 'nodad');
    // A namespace cannot choose an algorithm that is not open to all users, but a route can.
    const route = ['dev', tun.name, 'congctl', 'cubic', 'mtu'];
    ip('route', 'add', '198.18.0.0/15', ...route, '1500');
    ip('-6', 'route', 'add', 'fd18::/64', ...route, '1520');
    return new LinuxHost(tun, await KernelSockets.load());
  }

  readonly #tun: LinuxTun;
  readonly #sockets: KernelSockets;
  readonly #subjects = new Map<string, LinuxSubject>();
  readonly #buffer = Buffer.alloc(1 << 17);
  readonly #lag = new LagMonitor();
  #count = 0;

  private constructor(tun: LinuxTun, sockets: KernelSockets) {
    this.#tun = tun;
    this.#sockets = sockets;
    tun.start(() => this.drain());
  }

  /** Returns a subject with a far address that no other has had. */
  subject(family: Family): Subject {
    const n = ++this.#count;
    const remote =
      family === 4 ? `198.18.${n >> 8}.${n & 255}` : `fd18::${(0x1000 + n).toString(16)}`;
    const place = { family, local: LOCAL[family], localPort: 1024 + n, remote, remotePort: 40_000 };
    const subject = new LinuxSubject(place, this, this.#sockets, this.#lag, () => {
      this.#subjects.delete(keyOf(place));
    });
    this.#subjects.set(keyOf(place), subject);
    return subject;
  }

  inject(packet: Uint8Array): void {
    const frame = Buffer.from(framed(packet));
    if (!this.#tun.write(frame, 0, frame.length)) throw new Error('the kernel refuses the packet');
    this.drain();
  }

  /** Gives each packet that waits to the subject that it belongs to. */
  drain(): void {
    for (;;) {
      const length = this.#tun.read(this.#buffer, 0);
      if (length === 0) return;
      const packet = Uint8Array.prototype.slice.call(this.#buffer, VNET, length);
      const route = routeOf(packet);
      if (route) this.#subjects.get(keyOf(route))?.take({ packet, atMs: performance.now() });
    }
  }

  async close(): Promise<void> {
    this.#lag.close();
    for (const subject of this.#subjects.values()) subject.end();
    await this.#tun.close();
  }
}

class LinuxSubject implements Subject {
  readonly kind = 'linux';
  readonly patienceMs = 3_000;
  readonly place: Place;
  readonly #host: LinuxHost;
  readonly #sockets: KernelSockets;
  readonly #lag: LagMonitor;
  readonly #onEnd: () => void;
  readonly #queue: Sent[] = [];
  #wake: (() => void) | undefined;
  #listener = -1;
  #connection = -1;
  readonly #open = new Set<number>();

  constructor(
    place: Place,
    host: LinuxHost,
    sockets: KernelSockets,
    lag: LagMonitor,
    onEnd: () => void
  ) {
    this.place = place;
    this.#host = host;
    this.#sockets = sockets;
    this.#lag = lag;
    this.#onEnd = onEnd;
  }

  now(): number {
    return performance.now();
  }

  lagSince(atMs: number): number {
    return this.#lag.since(atMs);
  }

  inject(packet: Uint8Array): void {
    this.#host.inject(packet);
  }

  take(sent: Sent): void {
    this.#queue.push(sent);
    this.#wake?.();
  }

  async next(untilMs: number): Promise<Sent | undefined> {
    this.#host.drain();
    while (this.#queue.length === 0) {
      const leftMs = untilMs - performance.now();
      if (leftMs <= 0) return undefined;
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    return this.#queue.shift();
  }

  async wait(untilMs: number): Promise<void> {
    const leftMs = untilMs - performance.now();
    if (leftMs > 0) await new Promise((resolve) => setTimeout(resolve, leftMs));
  }

  call(name: CallName, argument: number, content: StreamContent): Outcome {
    const outcome = this.#call(name, argument, content);
    this.#host.drain();
    return outcome;
  }

  end(): void {
    for (const fd of this.#open) this.#sockets.abort(fd);
    this.#open.clear();
    this.#onEnd();
  }

  #call(name: CallName, argument: number, content: StreamContent): Outcome {
    const sockets = this.#sockets;
    const fd = this.#connection;
    switch (name) {
      case 'listen':
        this.#listener = this.#opened(sockets.socket(this.place));
        return sockets.listen(this.#listener, argument || 16);
      case 'accept': {
        const accepted = sockets.accept(this.#listener);
        if (typeof accepted !== 'number') return accepted;
        this.#connection = this.#opened(accepted);
        return 0;
      }
      case 'connect':
        this.#connection = this.#opened(sockets.socket(this.place));
        return sockets.connect(this.#connection, this.place);
      case 'connected':
        return sockets.connected(fd);
      case 'error':
        return sockets.error(fd);
      case 'write': {
        const count = sockets.write(fd, content.toWrite(argument));
        if (typeof count === 'number') content.wrote(count);
        return count;
      }
      case 'read': {
        const bytes = sockets.read(fd, argument);
        if (!(bytes instanceof Uint8Array)) return bytes;
        content.read(bytes);
        return bytes.length;
      }
      case 'shutdown':
        return sockets.shutdown(fd);
      case 'close':
        this.#open.delete(fd);
        return sockets.close(fd);
      case 'abort':
        this.#open.delete(fd);
        return sockets.abort(fd);
      case 'rebase':
        return 0;
      default:
        // Before a connection there is the listener, which hands its options down.
        return sockets.set(fd < 0 ? this.#listener : fd, name, argument);
    }
  }

  #opened(fd: number): number {
    this.#open.add(fd);
    return fd;
  }
}

/** Measures by how much a timer of this process is late: then packets may be seen late, and injected late. */
class LagMonitor {
  readonly #timer: NodeJS.Timeout;
  /** Pairs: when it was noticed, and the lag, in ms. */
  readonly #lags: (readonly [number, number])[] = [];
  #lastMs = performance.now();

  constructor() {
    this.#timer = setInterval(() => this.#tick(), PERIOD_MS);
  }

  since(atMs: number): number {
    // The period goes on: who asks often must not hide that this process is late.
    let lag = Math.max(0, performance.now() - this.#lastMs - PERIOD_MS);
    for (let i = this.#lags.length - 1; i >= 0 && this.#lags[i]![0] >= atMs; i--) {
      lag = Math.max(lag, this.#lags[i]![1]);
    }
    return lag;
  }

  close(): void {
    clearInterval(this.#timer);
  }

  #tick(): void {
    const nowMs = performance.now();
    const lag = nowMs - this.#lastMs - PERIOD_MS;
    this.#lastMs = nowMs;
    if (lag > 1) this.#lags.push([nowMs, lag]);
  }
}

function keyOf({ remote, localPort, remotePort }: Omit<Place, 'family' | 'local'>): string {
  return `${plainText(remote)} ${localPort} ${remotePort}`;
}

const PERIOD_MS = 4;
const LOCAL: Readonly<Record<Family, string>> = { 4: '192.0.2.1', 6: 'fd02::1' };

/** Settings of the namespace, so that scripts do not depend on the machine, nor on each other. */
const SETTINGS: Readonly<Record<string, string>> = {
  tcp_no_metrics_save: '1',
  tcp_autocorking: '0',
  tcp_ecn: '0',
  tcp_syncookies: '0',
  // RFC 6298: each timeout doubles; by default Linux sends five SYNs a second apart first.
  tcp_syn_linear_timeouts: '0',
  // No ACK waits to be compressed with the next.
  tcp_comp_sack_nr: '0',
  tcp_early_retrans: '3',
  tcp_recovery: '1',
  tcp_frto: '2',
  tcp_max_syn_backlog: '2048',
  tcp_keepalive_intvl: '1',
  tcp_keepalive_probes: '10',
};
