/**
 * Our endpoint as the subject of scripts. Its time is simulated: it goes from one deadline of the endpoint to the next,
 * so that a script of minutes takes milliseconds, and every time is exact.
 * @module
 */
import { type Family, IpAddress } from '../../../src/base/address.ts';
import { PacketSegmenter, SegmentResult } from '../../../src/packet/segmenter.ts';
import type { TcpConnection } from '../../../src/tcp/connection.ts';
import { TcpEndpoint } from '../../../src/tcp/endpoint.ts';
import type { IcmpError, IcmpErrorKind } from '../../../src/tcp/icmp-error.ts';
import { type TcpFailure, TcpState } from '../../../src/tcp/state.ts';
import { textOf } from '../../support/address.ts';
import { TCP, transportOf } from '../../support/packets.ts';
import { Random } from '../../support/random.ts';
import { framed, VNET } from '../../support/vnet.ts';
import type { CallName } from './script.ts';
import {
  type Outcome,
  PENDING,
  type Place,
  type Sent,
  type StreamContent,
  type Subject,
} from './subject.ts';

export interface StackOptions {
  readonly family: Family;
  /** Of the endpoint's random numbers. */
  readonly seed: number;
  /** Whether the endpoint sends super-segments with partial checksums, which are split here as a kernel does. */
  readonly offload: boolean;
}

export function stackSubject(options: StackOptions): Subject {
  return new StackSubject(PLACES[options.family], options);
}

class StackSubject implements Subject {
  readonly kind = 'stack';
  readonly patienceMs = 0;
  readonly place: Place;
  readonly #endpoint: TcpEndpoint;
  readonly #buffer = Buffer.alloc(1 << 17);
  readonly #queue: Sent[] = [];
  readonly #accepted: TcpConnection[] = [];
  #now = START_MS;
  #connection: TcpConnection | undefined;
  /** The application has learned why the connection failed. */
  #isTold = false;

  constructor(place: Place, { seed, offload }: StackOptions) {
    this.place = place;
    const random = new Random(seed);
    this.#endpoint = new TcpEndpoint({
      clock: { monotonicMs: () => this.#now },
      random: (length) => random.bytes(length),
      // The MSS is 1460 in both IP versions.
      mtu: place.family === 4 ? 1500 : 1520,
      offload,
    });
  }

  now(): number {
    return this.#now;
  }

  lagSince(): number {
    return 0;
  }

  inject(packet: Uint8Array): void {
    const endpoint = this.#endpoint;
    endpoint.advance();
    if (transportOf(packet).protocol === TCP) {
      const frame = framed(packet);
      endpoint.receive(frame, 0, frame.length);
    } else {
      endpoint.onIcmpError(decodeIcmp(packet));
    }
    this.#drain();
  }

  async next(untilMs: number): Promise<Sent | undefined> {
    await this.wait(untilMs, true);
    return this.#queue.shift();
  }

  /** @param isInterruptible whether the first packet ends the wait */
  async wait(untilMs: number, isInterruptible: boolean = false): Promise<void> {
    const endpoint = this.#endpoint;
    for (let steps = 0; !(isInterruptible && this.#queue.length > 0); steps++) {
      if (steps > MAX_STEPS) throw new Error(`the deadline stays at ${endpoint.deadline}`);
      const { deadline } = endpoint;
      if (deadline > untilMs) break;
      this.#now = Math.max(this.#now, deadline);
      endpoint.expire();
      this.#drain();
    }
    if (!(isInterruptible && this.#queue.length > 0)) this.#now = Math.max(this.#now, untilMs);
  }

  call(name: CallName, argument: number, content: StreamContent): Outcome {
    this.#endpoint.advance();
    const outcome = this.#call(name, argument, content);
    this.#drain();
    return outcome;
  }

  end(): void {
    this.#endpoint.destroy();
  }

  #call(name: CallName, argument: number, content: StreamContent): Outcome {
    const { place } = this;
    const endpoint = this.#endpoint;
    switch (name) {
      case 'listen':
        endpoint.listen(
          undefined,
          place.localPort,
          { onTcpConnection: (connection) => this.#accepted.push(connection) },
          argument || 16
        );
        return 0;
      case 'accept': {
        const accepted = this.#accepted.shift();
        if (accepted === undefined) return PENDING;
        accepted.owner = { onTcpEvents: () => {} };
        this.#take(accepted);
        return 0;
      }
      case 'connect':
        this.#take(
          endpoint.connect(
            IpAddress.parse(place.local),
            place.localPort,
            IpAddress.parse(place.remote),
            place.remotePort,
            { onTcpEvents: () => {} }
          )
        );
        return 0;
      case 'rebase':
        return 0;
    }
    const connection = this.#connection;
    if (connection === undefined) throw new Error('there is no connection');
    switch (name) {
      case 'connected':
        return connection.state >= TcpState.Established ? 0 : this.#error(connection);
      case 'error':
        return this.#error(connection);
      case 'write':
        return this.#write(connection, content.toWrite(argument), content);
      case 'read':
        return this.#read(connection, argument, content);
      case 'shutdown':
        connection.shutdown();
        return 0;
      case 'close':
        connection.release();
        return 0;
      case 'abort':
        connection.abort();
        return 0;
      case 'nodelay':
        connection.setNoDelay(argument !== 0);
        return 0;
      case 'keepalive':
        connection.setKeepAlive(argument * 1000);
        return 0;
      case 'user_timeout':
        connection.setUserTimeout(argument);
        return 0;
      default:
        throw new Error(`the stack has no ${name}`);
    }
  }

  #take(connection: TcpConnection): void {
    this.#connection = connection;
    this.#isTold = false;
  }

  #error({ failure }: TcpConnection): Outcome {
    if (failure === undefined) return PENDING;
    this.#isTold = true;
    return CODES[failure];
  }

  #write(connection: TcpConnection, bytes: Uint8Array, content: StreamContent): Outcome {
    const count = connection.write(bytes);
    content.wrote(count);
    if (count > 0) return count;
    if (connection.failure !== undefined && !this.#isTold) return this.#error(connection);
    const takesMore =
      connection.state === TcpState.Established || connection.state === TcpState.CloseWait;
    return takesMore ? PENDING : 'EPIPE';
  }

  #read(connection: TcpConnection, length: number, content: StreamContent): Outcome {
    const buffer = new Uint8Array(length);
    const count = connection.read(buffer, 0, length);
    content.read(buffer.subarray(0, count));
    if (count > 0) return count;
    if (connection.failure !== undefined && !this.#isTold) return this.#error(connection);
    const isAtEnd = connection.isReadEnded || connection.state === TcpState.Closed;
    return isAtEnd ? 0 : PENDING;
  }

  #drain(): void {
    const endpoint = this.#endpoint;
    endpoint.takeEvents();
    for (;;) {
      const length = endpoint.read(this.#buffer, 0);
      if (length === 0) return;
      const outcome = segmenter.begin(this.#buffer, 0, VNET, length, LONGEST_PACKET);
      if (outcome !== SegmentResult.Ready) throw new Error(`a frame that is wrong (${outcome})`);
      for (let one = segmenter.next(); one > 0; one = segmenter.next()) {
        const packet = Uint8Array.prototype.slice.call(segmenter.frame, VNET, one);
        this.#queue.push({ packet, atMs: this.#now });
      }
    }
  }
}

/** Decodes an ICMP error as `runner.ts` builds it. */
function decodeIcmp(packet: Uint8Array): IcmpError {
  const isIpv4 = packet[0]! >> 4 === 4;
  const { start } = transportOf(packet);
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const quoted = start + 8;
  const segment = quoted + (isIpv4 ? 20 : 40);
  const [source, size] = isIpv4 ? [quoted + 12, 4] : [quoted + 8, 16];
  const addressAt = (at: number) => IpAddress.parse(textOf(packet.subarray(at, at + size)));
  const [type, code] = [packet[start]!, packet[start + 1]!];
  return {
    kind: (isIpv4 ? ICMP_KINDS : ICMPV6_KINDS)[`${type} ${code}`]!,
    local: addressAt(source),
    localPort: view.getUint16(segment),
    remote: addressAt(source + size),
    remotePort: view.getUint16(segment + 2),
    sequence: view.getInt32(segment + 4),
    mtu: view.getUint32(start + 4),
  };
}

const ICMP_KINDS: Readonly<Record<string, IcmpErrorKind>> = {
  '3 0': 'network-unreachable',
  '3 1': 'host-unreachable',
  '3 2': 'protocol-unreachable',
  '3 3': 'port-unreachable',
  '3 4': 'too-big',
  '3 13': 'prohibited',
  '11 0': 'time-exceeded',
};
const ICMPV6_KINDS: Readonly<Record<string, IcmpErrorKind>> = {
  '1 0': 'network-unreachable',
  '1 1': 'prohibited',
  '1 3': 'host-unreachable',
  '1 4': 'port-unreachable',
  '2 0': 'too-big',
  '3 0': 'time-exceeded',
  '4 1': 'protocol-unreachable',
};

const CODES: Readonly<Record<TcpFailure, string>> = {
  refused: 'ECONNREFUSED',
  reset: 'ECONNRESET',
  'timed-out': 'ETIMEDOUT',
  'host-unreachable': 'EHOSTUNREACH',
  'network-unreachable': 'ENETUNREACH',
  aborted: 'ECONNABORTED',
  evicted: 'ENOBUFS',
};

const PORTS = { localPort: 2000, remotePort: 40_000 };
const PLACES: Readonly<Record<Family, Place>> = {
  4: { family: 4, local: '192.0.2.1', remote: '198.18.0.1', ...PORTS },
  6: { family: 6, local: 'fd02::1', remote: 'fd18::1', ...PORTS },
};
const segmenter = new PacketSegmenter(1);
const LONGEST_PACKET = 65_535;

/** An arbitrary time, with a fraction, as `performance.now` has. */
const START_MS = 1234.5;
/** More deadlines than any script has. */
const MAX_STEPS = 100_000;
