/**
 * A UDP backend at a UDP endpoint, in simulated time, whose sockets of the host are played by the test.
 * @module
 */
import type { Socket } from 'node:dgram';
import { EventEmitter } from 'node:events';
import type { AddressInfo } from 'node:net';
import type { IpAddress } from '../../../src/base/address.ts';
import { type BackendDialTarget, targetOf } from '../../../src/sockets/backend/backend-dial.ts';
import { UdpBackend, type UdpBackendOptions } from '../../../src/sockets/backend/backend-udp.ts';
import { HostDescriptors } from '../../../src/sockets/backend/host-descriptors.ts';
import type { Unreachable } from '../../../src/sockets/icmp/icmp.ts';
import type { UdpVerdict } from '../../../src/sockets/udp/udp.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { udpPacket } from '../../support/packets.ts';
import { address, type KitOptions, UdpKit } from '../udp/udp-kit.ts';

/** A service at another address than the stack's, and clients. */
export const SERVICE = { 4: '10.7.0.1', 6: 'fd07::1' } as const;
export const CLIENT = { 4: '10.5.0.1', 6: 'fd05::1' } as const;
export const PORT = 53;

export interface Report {
  readonly what: Unreachable;
  readonly from: string;
  readonly to: string;
  readonly quote: Buffer;
}

/** A `dgram.Socket` that is connected when the test says so. */
export class FakeHostSocket extends EventEmitter {
  readonly target: BackendDialTarget;
  readonly sent: Buffer[] = [];
  isConnected = false;
  isClosed = false;
  isRefd = true;
  /** Whether datagrams wait in the host, as if its buffer were full. */
  isFull = false;
  /** What `send` reports from now on. */
  failure: Error | null = null;
  readonly #waiting: ((error: Error | null) => void)[] = [];

  constructor(target: BackendDialTarget) {
    super();
    this.target = target;
  }

  accept(): this {
    this.isConnected = true;
    this.emit('connect');
    return this;
  }

  /** A datagram arrives, by default from the service. */
  reply(payload: Buffer, from: object = {}): void {
    const { address, port } = this.target;
    this.emit('message', payload, { address, port, ...from });
  }

  unref(): void {
    this.isRefd = false;
  }

  remoteAddress(): Pick<AddressInfo, 'address' | 'port'> {
    if (!this.isConnected) throw new Error('not connected');
    const { address, port } = this.target;
    return { address, port };
  }

  address(): Pick<AddressInfo, 'address' | 'port'> {
    return { address: '192.0.2.1', port: 40_000 };
  }

  getSendQueueCount(): number {
    return this.#waiting.length;
  }

  send(payload: Buffer, callback: (error: Error | null) => void): void {
    if (this.failure === null) this.sent.push(Buffer.from(payload));
    if (this.isFull) this.#waiting.push(callback);
    else callback(this.failure);
  }

  /** The host has room again. */
  drain(): void {
    this.isFull = false;
    for (const callback of this.#waiting.splice(0)) callback(null);
  }

  close(): void {
    if (this.isClosed) throw new Error('not running');
    this.isClosed = true;
    this.emit('close');
  }
}

type Options = Partial<UdpBackendOptions> & Pick<KitOptions, 'mtu'>;

export class UdpBackendKit extends UdpKit {
  readonly clock: FakeClock;
  readonly backend: UdpBackend;
  readonly hosts: FakeHostSocket[] = [];
  readonly reports: Report[] = [];
  /** What `allows` says. */
  isAllowed: (service: IpAddress, port: number) => boolean = (_, port) => port === PORT;
  /** Whether sockets of the host are connected at once. */
  isAccepting = true;

  constructor(options: Options = {}) {
    const clock = new FakeClock({ monotonicMs: 1000 });
    super({ mtu: options.mtu ?? 65_515, ...options });
    this.clock = clock;
    this.backend = new UdpBackend({
      udp: this.udp,
      icmp: {
        report: (what, from, to, quote) => {
          const bytes = Buffer.from(quote);
          this.reports.push({ what, from: from.toString(), to: to.toString(), quote: bytes });
        },
      },
      clock,
      allows: (_, service, port) => this.isAllowed(service, port),
      targetOf: (ends) => targetOf(ends, ends.local, false),
      maxFlows: 4_096,
      idleMs: 300_000,
      descriptors: new HostDescriptors(65_536),
      dial: (target) => this.#dial(target),
      ...options,
    });
  }

  /** A client's datagram arrives at the endpoint, whose events are not delivered yet. */
  arrive(
    payload: Uint8Array | string,
    ends: {
      readonly client?: string;
      readonly clientPort?: number;
      readonly service?: string;
      readonly port?: number;
    } = {}
  ): UdpVerdict {
    const { client = CLIENT[4], clientPort = 4000, port = PORT } = ends;
    const service = ends.service ?? SERVICE[address(client).family];
    const fields = { sourcePort: clientPort, destinationPort: port, payload: Buffer.from(payload) };
    return this.receive(udpPacket({ source: client, destination: service }, fields));
  }

  /** The same, and the next tick. */
  send(...args: Parameters<UdpBackendKit['arrive']>): UdpVerdict {
    const verdict = this.arrive(...args);
    this.udp.takeEvents();
    return verdict;
  }

  /** The socket of the host that was made last. */
  get host(): FakeHostSocket {
    return this.hosts.at(-1)!;
  }

  /** Time passes, for the endpoint too. */
  pass(ms: number): void {
    this.nowMs += ms;
    this.clock.advance(ms);
  }

  #dial(target: BackendDialTarget): Socket {
    const host = new FakeHostSocket(target);
    this.hosts.push(host);
    host.isConnected = this.isAccepting;
    return host as unknown as Socket;
  }
}
