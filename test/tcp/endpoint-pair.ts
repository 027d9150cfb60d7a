/**
 * Two endpoints with one simulated clock and a path between them, which the test may disturb.
 */
import { IpAddress } from '../../src/base/address.ts';
import { VNET_HEADER_LENGTH } from '../../src/packet/index.ts';
import {
  type TcpConnection,
  TcpEndpoint,
  type TcpEndpointOptions,
  TcpEvent,
} from '../../src/tcp/index.ts';
import { Random } from '../support/random.ts';

/** What the path does with a frame: delivers copies of it after delays in ms; an empty list loses it. */
export type Path = (frame: Buffer, from: 'a' | 'b') => readonly number[];

interface InFlight {
  readonly at: number;
  readonly order: number;
  readonly to: TcpEndpoint;
  readonly frame: Buffer;
}

export interface PairOptions {
  readonly seed?: number;
  readonly delayMs?: number;
  readonly a?: Partial<TcpEndpointOptions>;
  readonly b?: Partial<TcpEndpointOptions>;
}

/** Endpoint a is 10.0.0.1 and 2001:db8::1, endpoint b 10.0.0.2 and 2001:db8::2. */
export class EndpointPair {
  now = 1_000;
  path: Path;
  /** Whether the device of an endpoint asks for packets. */
  isPaused: (name: 'a' | 'b') => boolean = () => false;
  /** Whether the device does not take the next packet. */
  isRefused: () => boolean = () => false;
  readonly a: TcpEndpoint;
  readonly b: TcpEndpoint;
  /** Every frame that was sent, if the test asks for it. */
  log: { readonly from: 'a' | 'b'; readonly at: number; readonly frame: Buffer }[] | undefined;
  readonly #queue: InFlight[] = [];
  readonly #buffer = Buffer.alloc(70_000);
  #order = 0;

  constructor({ seed = 1, delayMs = 1, a, b }: PairOptions = {}) {
    const source = new Random(seed);
    const random = (): number => source.next();
    const options: TcpEndpointOptions = {
      clock: { monotonicMs: () => this.now },
      random: (length) => Uint8Array.from({ length }, () => Math.floor(random() * 256)),
    };
    this.a = new TcpEndpoint({ ...options, ...a });
    this.b = new TcpEndpoint({ ...options, ...b });
    this.path = () => [delayMs];
  }

  /** Delivers what is due and lets both endpoints send and act, until nothing happens at this time. */
  settle(): void {
    for (let rounds = 0; rounds < 100_000; rounds++) {
      if (!this.#step()) return;
    }
    throw new Error('the endpoints never rest');
  }

  /** Lets time pass until `isDone`, or until nothing will ever happen, at most for `limitMs`. */
  run(isDone: () => boolean = () => false, limitMs: number = 3_600_000): void {
    const end = this.now + limitMs;
    for (;;) {
      this.settle();
      if (isDone()) return;
      const next = Math.min(this.a.deadline, this.b.deadline, ...this.#queue.map(({ at }) => at));
      if (next === Number.POSITIVE_INFINITY || next > end) return;
      this.now = Math.max(this.now, next);
    }
  }

  #step(): boolean {
    let isBusy = false;
    const due = this.#queue.filter(({ at }) => at <= this.now);
    due.sort((one, other) => one.at - other.at || one.order - other.order);
    for (const item of due) {
      this.#queue.splice(this.#queue.indexOf(item), 1);
      item.to.advance();
      item.to.receive(item.frame, 0, item.frame.length);
      isBusy = true;
    }
    for (const [name, endpoint] of [
      ['a', this.a],
      ['b', this.b],
    ] as const) {
      if (endpoint.deadline <= this.now) endpoint.expire();
      endpoint.takeEvents();
      endpoint.advance();
      while (!this.isPaused(name)) {
        const length = endpoint.read(this.#buffer, 0);
        if (length === 0) break;
        isBusy = true;
        if (this.isRefused()) {
          endpoint.refused();
          continue;
        }
        const frame = Buffer.from(this.#buffer.subarray(0, length));
        this.log?.push({ from: name, at: this.now, frame });
        const to = name === 'a' ? this.b : this.a;
        for (const delay of this.path(frame, name)) {
          this.#queue.push({ at: this.now + delay, order: this.#order++, to, frame });
        }
      }
    }
    return isBusy;
  }
}

export const A4: IpAddress = IpAddress.parse('10.0.0.1');
export const B4: IpAddress = IpAddress.parse('10.0.0.2');
export const A6: IpAddress = IpAddress.parse('2001:db8::1');
export const B6: IpAddress = IpAddress.parse('2001:db8::2');

/** An application that collects what it reads, and writes what it is told to. */
export class TestOwner {
  readonly received: Buffer[] = [];
  events = 0;
  connection: TcpConnection | undefined;
  /** What is still to be written. */
  pending: Buffer = Buffer.alloc(0);
  shutsDown = false;
  /** Whether it reads at once what comes. */
  isReading = true;

  onTcpConnection(connection: TcpConnection): void {
    this.connection = connection;
    connection.owner = this;
    this.#work(connection);
  }

  onTcpEvents(connection: TcpConnection, events: number): void {
    this.connection = connection;
    this.events |= events;
    this.#work(connection);
  }

  get bytes(): Buffer {
    return Buffer.concat(this.received);
  }

  get isClosed(): boolean {
    return (this.events & TcpEvent.Closed) !== 0;
  }

  send(bytes: Buffer, shutsDown = false): void {
    this.pending = Buffer.concat([this.pending, bytes]);
    this.shutsDown ||= shutsDown;
    if (this.connection !== undefined) this.#work(this.connection);
  }

  read(length: number = Number.POSITIVE_INFINITY): void {
    const { connection } = this;
    if (connection === undefined) return;
    const count = Math.min(length, connection.available);
    if (count === 0) return;
    const bytes = Buffer.alloc(count);
    connection.read(bytes, 0, count);
    this.received.push(bytes);
  }

  #work(connection: TcpConnection): void {
    if (this.isReading) this.read();
    if (this.pending.length > 0) {
      this.pending = this.pending.subarray(connection.write(this.pending));
    }
    if (this.pending.length === 0 && this.shutsDown) connection.shutdown();
  }
}

/** The payload bytes of a frame with IPv4, for a look at sizes. */
export function payloadLength(frame: Buffer): number {
  const ip = VNET_HEADER_LENGTH;
  const header = frame[ip]! >>> 4 === 4 ? 20 : 40;
  return frame.length - ip - header - ((frame[ip + header + 12]! >>> 4) << 2);
}

/** A connection between the two ends of a pair. */
export interface Connected {
  readonly pair: EndpointPair;
  readonly server: TestOwner;
  readonly client: TestOwner;
}

/** A connection from `a` to `b`, 10 ms of round trip. */
export function connected(): Connected {
  const pair = new EndpointPair({ delayMs: 5 });
  const server = new TestOwner();
  const client = new TestOwner();
  pair.b.listen(undefined, 80, server, 1);
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  pair.run(() => server.connection !== undefined, 1_000);
  pair.run(() => false, 1_000);
  return { pair, server, client };
}
