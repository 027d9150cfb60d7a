/**
 * One run of the fuzzer: two endpoints, some connections, and forged segments among the real ones.
 * @module
 */
import type { ControlBlock } from '../../../src/tcp/control-block.ts';
import type { TcpEndpoint } from '../../../src/tcp/endpoint.ts';
import {
  type TcpConnection,
  type TcpHolder,
  type TcpPendingOpen,
  TcpState,
} from '../../../src/tcp/index.ts';
import { Random } from '../../support/random.ts';
import { VNET } from '../../support/vnet.ts';
import { A4, A6, B4, B6, EndpointPair, TestOwner } from '../endpoint-pair.ts';
import { FIN, Frame, RST, SYN } from './frame.ts';
import { Watch } from './invariants.ts';
import { mutate, mutateWithoutHarm } from './mutations.ts';

export class FuzzRun {
  forged = 0;
  /** How many transfers ended with the right bytes. */
  completed = 0;
  readonly #seed: number;
  readonly #kind: 'anything' | 'without harm';
  readonly #budget: number;
  readonly #random: Random;
  readonly #pair: EndpointPair;
  readonly #watches: { readonly a: Watch; readonly b: Watch };
  readonly #frame = new Frame();
  /** Real frames of late, for each end that they go to. */
  readonly #recent: { readonly a: Buffer[]; readonly b: Buffer[] } = { a: [], b: [] };
  readonly #transfers: Transfer[] = [];
  /** Who takes the connections to a port whose handshakes are held. */
  readonly #holders = new Map<number, TestOwner>();
  /** Handshakes that wait to be decided about. */
  #held: Held[] = [];
  /** The ports for which one was dropped. */
  readonly #dropped = new Set<number>();
  /** Nothing is forged yet: few handshakes outlive it. */
  #isCalm = false;
  #port = 1000;

  /** @param budget how many segments are forged */
  constructor(seed: number, kind: 'anything' | 'without harm', budget: number) {
    this.#seed = seed;
    this.#kind = kind;
    this.#budget = budget;
    const random = new Random(seed);
    this.#random = random;
    const mtu = random.pick([1280, 1500, 1500, 1500, 9000, 65_515]);
    const limits = {
      bufferBytes: random.pick([256 * 1024, 64 * 1024 * 1024]),
      // Forged SYNs push the handshakes of others out of a small table, which is harm.
      halfOpen: kind === 'without harm' ? 1024 : random.pick([4, 1024]),
      timeWait: random.pick([2, 1024]),
    };
    this.#pair = new EndpointPair({
      seed,
      a: { mtu, offload: random.chance(0.3) },
      b: { mtu: random.chance(0.5) ? mtu : 1500, offload: random.chance(0.3), limits },
    });
    this.#pair.b.holder = this.#holder;
    this.#watches = { a: new Watch(this.#pair.a), b: new Watch(this.#pair.b) };
  }

  /** @throws Error what does not hold, with the seed */
  all(): void {
    const loss = this.#random.pick([0, 0, 0.01, 0.05]);
    const flapping = this.#random.pick([0, 0, 0.01]);
    const refusal = this.#random.pick([0, 0, 0.02]);
    const reordering = this.#random.pick([0, 3]);
    this.#pair.path = (frame, from) => {
      const to = from === 'a' ? 'b' : 'a';
      if (this.#random.chance(refusal)) {
        // The device has no place for it.
        this.#pair[from].refused();
        this.#watches[from].onRefused();
        return [];
      }
      if (this.#random.chance(flapping)) {
        this.#pair[to].linkChanged(false);
        this.#pair[to].linkChanged(true);
      }
      this.#decide();
      this.#forgeAround(frame, to);
      if (this.#random.chance(loss)) return [];
      return [1 + this.#random.below(1 + reordering)];
    };
    while (this.forged < this.#budget) {
      this.#open();
      this.#pair.run(() => this.forged >= this.#budget || this.#transfers.every(isOver), 600_000);
      // Some find ended connections, and those that one end believes to be open.
      this.#forgeSome(20);
      if (this.forged < this.#budget) this.#leave();
    }
    this.#finish();
  }

  /** The users have enough of connections that did not end by themselves, after all that was done to them. */
  #leave(): void {
    for (const transfer of this.#transfers.splice(0)) {
      this.#complete(transfer);
      release(transfer.client.connection, transfer.server.connection);
    }
  }

  #complete(transfer: Transfer): void {
    const fault = faultOf(transfer);
    if (fault === undefined) this.completed++;
    else if (this.#kind === 'without harm') this.#expect(fault);
  }

  #open(): void {
    const { a, b } = this.#pair;
    const random = this.#random;
    for (const frames of [this.#recent.a, this.#recent.b]) frames.length = 0;
    const count = random.between(1, 3);
    const isIpv4 = random.chance(0.5);
    this.#isCalm = random.chance(0.8);
    const [local, remote] = isIpv4 ? [A4, B4] : [A6, B6];
    for (let i = 0; i < count; i++) {
      const [client, server] = [new TestOwner(), new TestOwner()];
      const port = ++this.#port;
      if (random.chance(0.5)) b.listen(undefined, port, server, 10);
      else this.#holders.set(port, server);
      client.connection = a.connect(local, 0, remote, port, client);
      const up = Buffer.from(random.bytes(random.below(random.pick([10, 20_000, 200_000]))));
      const down = Buffer.from(random.bytes(random.below(random.pick([10, 20_000, 200_000]))));
      client.send(up, true);
      server.send(down, true);
      this.#transfers.push({ client, server, up, down });
    }
  }

  /** Takes the SYNs to ports where nothing listens. */
  readonly #holder: TcpHolder = {
    isOwn: () => true,
    onTcpSyn: ({ localPort }) => {
      const server = this.#holders.get(localPort);
      if (server === undefined) return this.#random.pick(['refuse', 'drop']);
      let open: TcpPendingOpen | undefined;
      return {
        onTcpOpen: (held) => {
          open = held;
          this.#held.push({ open: held, waits: 0 });
        },
        onTcpConnection: (connection) => server.onTcpConnection(connection),
        onTcpOpenEnded: () => {
          if (open?.isOpen) this.#expect('a handshake that has ended is open');
        },
      };
    },
  };

  /**
   * Decides about some handshakes that are held. Harm is only to refuse one, for a dropped SYN is sent again; and to
   * wait for too many frames, for all of them may be the client's SYN, which is sent seven times.
   */
  #decide(): void {
    const random = this.#random;
    this.#held = this.#held.filter((held) => {
      const { open } = held;
      if (random.chance(0.3) && held.waits++ < 2) return open.isOpen;
      const { localPort } = open.flow;
      if (random.chance(0.8) || this.#dropped.has(localPort)) {
        open.accept();
      } else if (this.#kind === 'anything' && random.chance(0.5)) {
        open.refuse();
      } else {
        // A client ends if this happens too often.
        this.#dropped.add(localPort);
        open.drop();
      }
      return false;
    });
  }

  /** Forges some segments after a real frame, and keeps it as a template. */
  #forgeAround(frame: Buffer, to: 'a' | 'b'): void {
    const { flags, payloadLength } = frameOf(frame);
    // Most forged segments are answered: what is forged after an answer must be less, else it would never end.
    if ((flags & RST) !== 0) return;
    if (this.#isCalm) this.#isCalm = !this.#transfers.every(isUnderWay);
    if (this.#isCalm) return;
    // Super-segments would only slow the fuzzer down.
    if (frame.length <= 3000) {
      const recent = this.#recent[to];
      recent[recent.length < 16 ? recent.length : this.#random.below(16)] = frame;
    }
    const isAnswer = payloadLength === 0 && (flags & (SYN | FIN)) === 0;
    this.#forgeSome(isAnswer ? 2 : 40);
  }

  #forgeSome(limit: number): void {
    for (let count = this.#random.below(limit); count > 0; count--) {
      if (this.forged < this.#budget) this.#forge();
    }
  }

  #forge(): void {
    const random = this.#random;
    const to = random.pick(['a', 'b'] as const);
    const templates = this.#recent[to];
    if (templates.length === 0) {
      if (this.#recent.a.length + this.#recent.b.length === 0) this.forged = this.#budget;
      return;
    }
    const frame = this.#frame;
    let block: ControlBlock | undefined;
    // Mostly for a connection that is still there.
    for (let tries = random.between(1, 8); tries > 0 && block === undefined; tries--) {
      frame.take(random.pick(templates));
      block = this.#blockFor(to, frame);
    }
    if (this.#kind === 'anything') mutate(random, frame, block);
    else if (!mutateWithoutHarm(random, frame, block)) return;
    this.forged++;
    this.#inject(this.#pair[to], this.#watches[to]);
  }

  #blockFor(to: 'a' | 'b', frame: Frame): ControlBlock | undefined {
    const at = frame.tcp;
    const { bytes } = frame;
    const [source, destination] = [
      bytes[at]! * 256 + bytes[at + 1]!,
      bytes[at + 2]! * 256 + bytes[at + 3]!,
    ];
    for (const block of this.#watches[to].blocks) {
      const { localPort, remotePort } = block.flow;
      if (localPort === destination && remotePort === source) return block;
    }
    return undefined;
  }

  #inject(endpoint: TcpEndpoint, watch: Watch): void {
    const { bytes, length } = this.#frame;
    try {
      endpoint.advance();
      endpoint.receive(bytes, 0, length);
    } catch (error) {
      const hex = Buffer.from(bytes.subarray(0, Math.min(length, 120))).toString('hex');
      throw new Error(`seed ${this.#seed}, segment ${this.forged}: ${hex}`, { cause: error });
    }
    this.#expect(watch.check());
  }

  /** Ends all that is left, and looks whether anything stays behind. */
  #finish(): void {
    const { a, b } = this.#pair;
    let frames = 0;
    this.#pair.path = () => {
      frames++;
      this.#decide();
      return [1];
    };
    this.#pair.run(() => this.#transfers.every(isOver), 3_600_000);
    this.#leave();
    for (const { open } of this.#held) open.drop();
    b.holder = undefined;
    for (const endpoint of [a, b]) {
      for (const connection of [...endpoint.connections()]) connection.abort();
      endpoint.destroy();
      endpoint.takeEvents();
    }
    this.#pair.run(() => false, 300_000);
    // Two ends that answer each other's answers never cease.
    if (frames > MAX_LAST_FRAMES) this.#expect(`${frames} frames after the last forged segment`);
    for (const [name, { memory, sizes }] of [
      ['a', a],
      ['b', b],
    ] as const) {
      const left = [...Object.entries(sizes), ['bytes', memory.used], ['small', memory.usedSmall]];
      for (const [what, count] of left) {
        if (count !== 0) this.#expect(`${count} ${what} are left at ${name}`);
      }
    }
  }

  #expect(fault: string | undefined): void {
    if (fault === undefined) return;
    throw new Error(`${fault} (VP_SEED=${this.#seed}, ${this.#kind}, segment ${this.forged})`);
  }
}

interface Held {
  readonly open: TcpPendingOpen;
  /** For how many frames it was not decided about. */
  waits: number;
}

interface Transfer {
  readonly client: TestOwner;
  readonly server: TestOwner;
  readonly up: Buffer;
  readonly down: Buffer;
}

function isOver({ client, server }: Transfer): boolean {
  return client.isClosed && server.isClosed;
}

function isUnderWay({ client, server }: Transfer): boolean {
  const isOpen = client.connection?.state !== TcpState.SynSent;
  return isOpen && server.connection !== undefined;
}

function faultOf({ client, server, up, down }: Transfer): string | undefined {
  for (const { isClosed, connection } of [client, server]) {
    if (connection?.failure !== undefined) return `a connection failed: ${connection.failure}`;
    if (!isClosed) return 'a connection did not end';
  }
  if (!server.bytes.equals(up)) return `${server.bytes.length} bytes instead of ${up.length}`;
  if (!client.bytes.equals(down)) return `${client.bytes.length} bytes instead of ${down.length}`;
  return undefined;
}

function frameOf(frame: Buffer): { readonly flags: number; readonly payloadLength: number } {
  const tcp = VNET + (frame[VNET]! >> 4 === 4 ? 20 : 40);
  const payload = tcp + (frame[tcp + 12]! >> 4) * 4;
  return { flags: frame[tcp + 13]!, payloadLength: frame.length - payload };
}

function release(...connections: readonly (TcpConnection | undefined)[]): void {
  for (const connection of connections) connection?.release();
}

/** More than all transfers need, with some retransmissions. */
const MAX_LAST_FRAMES = 5_000;
