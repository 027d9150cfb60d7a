/**
 * A `TcpEndpoint` as the comparison with the oracle sees it: one connection, or one listener, whose peer is the test.
 * @module
 */
import { IpAddress } from '../../src/base/address.ts';
import { connectionOf, type TcpConnection } from '../../src/tcp/connection.ts';
import type { ControlBlock } from '../../src/tcp/control-block.ts';
import { TcpEndpoint } from '../../src/tcp/endpoint.ts';
import { TcpEvent, TcpState } from '../../src/tcp/state.ts';
import type { Implementation, View } from '../oracle/tcp/implementation.ts';
import type { Segment } from '../oracle/tcp/segment.ts';
import type { State } from '../oracle/tcp/tcb.ts';
import { packetOf, segmentFrom } from '../oracle/tcp/wire.ts';
import { verifyChecksums } from '../oracle/verify.ts';
import type { Random } from '../support/random.ts';
import { framed, VNET } from '../support/vnet.ts';

export class EndpointImplementation implements Implementation {
  readonly #endpoint: TcpEndpoint;
  readonly #ends: { readonly source: string; readonly destination: string };
  readonly #blocks = new WeakMap<TcpConnection, ControlBlock>();
  readonly #sent: Segment[] = [];
  readonly #frame = new Uint8Array(VNET + 65_535);
  #how: 'active' | 'passive' = 'active';
  #now: number;
  #localPort = LISTENING;
  #connection: TcpConnection | undefined;
  #isConnected = false;
  readonly #isHeld: boolean;

  /** @param isHeld whether handshakes are held, and accepted as soon as the owner knows of them */
  constructor(random: Random, isHeld: boolean) {
    this.#isHeld = isHeld;
    const [source, destination] = random.chance(0.5)
      ? ['10.0.0.2', '10.0.0.1']
      : ['2001:db8::2', '2001:db8::1'];
    this.#ends = { source, destination };
    this.#now = random.below(2 ** 33) + random.next();
    this.#endpoint = new TcpEndpoint({
      clock: { monotonicMs: () => this.#now },
      random: (length) => random.bytes(length),
      mtu: random.pick([1280, 1500, 65_515]),
      offload: random.chance(0.5),
    });
    const { host } = this.#endpoint;
    const { update } = host;
    // Each block passes here when its connection begins.
    host.update = (block: ControlBlock): void => {
      this.#blocks.set(connectionOf(block), block);
      update.call(host, block);
    };
  }

  open(how: 'active' | 'passive'): void {
    this.#how = how;
    const local = IpAddress.parse(this.#ends.destination);
    if (how === 'active') {
      const remote = IpAddress.parse(this.#ends.source);
      this.#connection = this.#endpoint.connect(local, 0, remote, PEER_PORT, this.#owner);
      this.#localPort = this.#connection.flow.localPort;
    } else {
      const onTcpConnection = (connection: TcpConnection): void => {
        connection.owner = this.#owner;
        this.#connection = connection;
        this.#isConnected = true;
      };
      if (this.#isHeld) this.#holdFor(onTcpConnection);
      else this.#endpoint.listen(local, LISTENING, { onTcpConnection }, 10);
    }
    this.#drain();
  }

  send(octets: readonly number[]): number {
    const count = this.#connection?.write(Uint8Array.from(octets)) ?? 0;
    this.#drain();
    return count;
  }

  receive(count: number): readonly number[] {
    const size = Math.min(count, this.#connection?.available ?? 0);
    const target = new Uint8Array(size);
    const taken = this.#connection?.read(target, 0, size) ?? 0;
    this.#drain();
    return [...target.subarray(0, taken)];
  }

  close(): void {
    this.#connection?.shutdown();
    this.#drain();
  }

  release(): void {
    this.#connection?.release();
    // Nobody is there to be told.
    this.#isConnected = true;
    this.#drain();
  }

  abort(): void {
    this.#connection?.abort();
    this.#drain();
  }

  arrives(segment: Segment): void {
    const ports = { sourcePort: PEER_PORT, destinationPort: this.#localPort };
    const frame = framed(packetOf(this.#ends, ports, segment));
    this.#endpoint.advance();
    this.#endpoint.receive(frame, 0, frame.length);
    if (this.#endpoint.sizes.halfOpen > 0) this.#forget();
    this.#drain();
  }

  sent(): readonly Segment[] {
    return this.#sent.splice(0);
  }

  pass(ms: number): void {
    const end = this.#now + ms;
    while (this.#endpoint.deadline <= end) {
      this.#now = Math.min(end, Math.max(this.#now + TICK_MS, this.#endpoint.deadline));
      this.#endpoint.expire();
      this.#drain();
      if (this.#now === end) break;
    }
    this.#now = end;
    this.#endpoint.expire();
    this.#drain();
  }

  view(): View {
    const connection = this.#connection;
    const block = connection && this.#blocks.get(connection);
    const failure = connection?.failure;
    return {
      state: this.#state(),
      RCV_NXT: block && block.window.next >>> 0,
      RCV_WND: block?.window.size,
      SND_UNA: block && block.sndUna >>> 0,
      SND_NXT: block && block.sndNxt >>> 0,
      available: connection?.available ?? 0,
      isReadEnded: connection?.isReadEnded ?? false,
      failure: failure === 'aborted' ? undefined : failure,
      isConnected: this.#isConnected,
    };
  }

  #state(): State {
    const { sizes } = this.#endpoint;
    if (this.#connection === undefined) return sizes.halfOpen > 0 ? 'SYN-RECEIVED' : 'LISTEN';
    const { state } = this.#connection;
    if (state === TcpState.TimeWait) return sizes.timeWait > 0 ? 'TIME-WAIT' : 'CLOSED';
    return STATES[state]!;
  }

  #holdFor(onTcpConnection: (connection: TcpConnection) => void): void {
    this.#endpoint.holder = {
      isOwn: () => true,
      onTcpSyn: () => ({
        onTcpOpen: (open) => void open.accept(),
        onTcpConnection,
        onTcpOpenEnded: () => {},
      }),
    };
  }

  /** A listener has another connection now. */
  #forget(): void {
    if (this.#how !== 'passive') return;
    this.#connection = undefined;
    this.#isConnected = false;
  }

  #drain(): void {
    this.#endpoint.takeEvents();
    for (;;) {
      const length = this.#endpoint.read(this.#frame, 0);
      if (length === 0) break;
      const frame = this.#frame.slice(0, length);
      const wrong = verifyChecksums(frame);
      if (wrong.length > 0) throw new Error(`wrong checksums: ${wrong}`);
      const { segment, sourcePort, destinationPort } = segmentFrom(frame.subarray(VNET));
      if (sourcePort !== this.#localPort || destinationPort !== PEER_PORT) {
        throw new Error(`wrong ports: ${sourcePort}, ${destinationPort}`);
      }
      this.#sent.push(segment);
    }
    this.#endpoint.takeEvents();
  }

  readonly #owner = {
    onTcpEvents: (_: TcpConnection, events: number): void => {
      if ((events & TcpEvent.Connected) !== 0) this.#isConnected = true;
    },
  };
}

const PEER_PORT = 40_000;
const LISTENING = 80;
const TICK_MS = 0.5;

const STATES: readonly State[] = [
  'CLOSED',
  'SYN-SENT',
  'SYN-RECEIVED',
  'ESTABLISHED',
  'FIN-WAIT-1',
  'FIN-WAIT-2',
  'CLOSE-WAIT',
  'CLOSING',
  'LAST-ACK',
  'TIME-WAIT',
];
