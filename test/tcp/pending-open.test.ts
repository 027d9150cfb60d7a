/**
 * Held handshakes: a SYN that its owner decides about later.
 */
import { describe, expect, test } from 'vitest';
import type { IpAddress } from '../../src/base/address.ts';
import {
  type TcpConnection,
  type TcpHolder,
  type TcpLimits,
  type TcpOpenEnd,
  type TcpOpenOwner,
  type TcpPendingOpen,
  TcpState,
} from '../../src/tcp/index.ts';
import { ACK, RST, SYN } from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { VNET } from '../support/vnet.ts';
import { OWN, RawEnd, type Sent } from './raw-end.ts';

const CLIENT = '10.0.0.2';
const IRS = 1_000_000;

/** Notes what it learns of one handshake. */
class Owner implements TcpOpenOwner {
  readonly log: string[] = [];
  open: TcpPendingOpen | undefined;
  connection: TcpConnection | undefined;

  onTcpOpen(open: TcpPendingOpen): void {
    this.log.push('open');
    this.open = open;
  }

  onTcpConnection(connection: TcpConnection): void {
    this.log.push('connection');
    this.connection = connection;
  }

  onTcpOpenEnded(reason: TcpOpenEnd): void {
    this.log.push(reason);
  }
}

class Holder implements TcpHolder {
  readonly owners: Owner[] = [];
  answer: 'hold' | 'refuse' | 'drop' = 'hold';

  isOwn(address: IpAddress): boolean {
    return address.toString() === OWN;
  }

  onTcpSyn(): TcpOpenOwner | 'refuse' | 'drop' {
    if (this.answer !== 'hold') return this.answer;
    const owner = new Owner();
    this.owners.push(owner);
    return owner;
  }
}

function start(limits: Partial<TcpLimits> = {}): { end: RawEnd; holder: Holder } {
  const end = new RawEnd(limits);
  const holder = new Holder();
  end.endpoint.holder = holder;
  return { end, holder };
}

function syn(end: RawEnd, source = CLIENT, port = 3_000, sequence = IRS): void {
  end.receive(source, port, 80, { sequence, flags: SYN, window: 1_000 });
  end.endpoint.takeEvents();
}

/** One held handshake that its owner knows. */
function held(limits: Partial<TcpLimits> = {}): { end: RawEnd; holder: Holder; owner: Owner } {
  const { end, holder } = start(limits);
  syn(end);
  const owner = holder.owners[0]!;
  expect(owner.log).toEqual(['open']);
  return { end, holder, owner };
}

const flagsOf = (sent: readonly Sent[]): number[] => sent.map(({ flags }) => flags);

describe('a held handshake', () => {
  test('sends nothing, however long it is held, and a repeated SYN finds it', () => {
    const { end, holder, owner } = held();
    for (const second of [1, 2, 4, 8, 16, 32]) {
      end.pass(second * 1_000);
      syn(end);
      expect(end.take()).toEqual([]);
    }
    expect(holder.owners).toEqual([owner]);
    expect(end.endpoint.sizes).toMatchObject({ halfOpen: 1, connections: 0 });
  });

  test('is answered when it is accepted, and becomes a connection of its owner', () => {
    const { end, owner } = held();
    end.pass(5_000);
    expect(owner.open!.accept()).toBe(true);
    const [synAck, ...others] = end.take();
    expect(others).toEqual([]);
    expect(synAck).toMatchObject({ flags: SYN | ACK, acknowledgement: IRS + 1, to: CLIENT });
    // Nothing more by a second call; the timer sends it again.
    owner.open!.accept();
    expect(end.take()).toEqual([]);
    end.now += 1_000;
    end.endpoint.expire();
    expect(flagsOf(end.take())).toEqual([SYN | ACK]);
    end.receive(CLIENT, 3_000, 80, {
      sequence: IRS + 1,
      acknowledgment: synAck!.sequence + 1,
      flags: ACK,
    });
    end.endpoint.takeEvents();
    expect(owner.log).toEqual(['open', 'connection']);
    expect(owner.connection!.state).toBe(TcpState.Established);
    expect(owner.open!.isOpen).toBe(false);
    expect(end.endpoint.sizes).toMatchObject({ halfOpen: 0, connections: 1 });
    owner.open!.refuse();
    owner.open!.drop();
    expect(end.take()).toEqual([]);
    expect(owner.connection!.state).toBe(TcpState.Established);
  });

  test('counts the round trip from the SYN-ACK, not from the SYN', () => {
    const { end, owner } = held();
    end.pass(20_000);
    owner.open!.accept();
    const [synAck] = end.take();
    end.now += 30;
    end.endpoint.advance();
    const acknowledgment = synAck!.sequence + 1;
    end.receive(CLIENT, 3_000, 80, { sequence: IRS + 1, acknowledgment, flags: ACK });
    end.endpoint.takeEvents();
    expect(owner.connection!.rttMs).toBeCloseTo(30);
  });

  test('tells the peer by its timestamp which of its SYNs is answered', () => {
    const { end, holder } = start();
    const repeat = (value: number): void => {
      const tcpOptions = Uint8Array.from([1, 1, 8, 10, 0, 0, 0, value, 0, 0, 0, 0]);
      end.receive(CLIENT, 3_000, 80, { sequence: IRS, flags: SYN, tcpOptions });
      end.endpoint.takeEvents();
    };
    for (const value of [10, 20, 15]) repeat(value);
    const [owner] = holder.owners;
    const buffer = Buffer.alloc(70_000);
    owner!.open!.accept();
    const length = end.endpoint.read(buffer, 0);
    const options = buffer.subarray(VNET + 40, length);
    const at = options.indexOf(Buffer.from([8, 10]));
    expect(at).toBeGreaterThanOrEqual(0);
    expect(options.readUInt32BE(at + 6)).toBe(20);
  });

  test('is refused by a reset that the peer believes', () => {
    const { end, owner } = held();
    owner.open!.refuse();
    expect(end.take()).toMatchObject([
      { flags: RST | ACK, sequence: 0, acknowledgement: IRS + 1, to: CLIENT, sourcePort: 80 },
    ]);
    expect(end.endpoint.sizes.halfOpen).toBe(0);
    expect(owner.open!.accept()).toBe(false);
    expect(end.take()).toEqual([]);
    expect(owner.log).toEqual(['open']);
  });

  test('is refused behind its SYN-ACK too', () => {
    const { end, owner } = held();
    owner.open!.accept();
    const [synAck] = end.take();
    owner.open!.refuse();
    expect(end.take()).toMatchObject([
      { flags: RST | ACK, sequence: synAck!.sequence + 1, acknowledgement: IRS + 1 },
    ]);
    expect(end.endpoint.sizes.halfOpen).toBe(0);
  });

  test('is dropped without a word, and the next SYN begins another one', () => {
    const { end, holder, owner } = held();
    owner.open!.drop();
    expect(end.take()).toEqual([]);
    expect(end.endpoint.sizes.halfOpen).toBe(0);
    syn(end);
    expect(holder.owners).toHaveLength(2);
  });

  test('ends by a reset with the exact number, and by no other', () => {
    const { end, owner } = held();
    for (const offset of [0, 2, 100, -1]) {
      end.receive(CLIENT, 3_000, 80, { sequence: IRS + offset, flags: RST });
    }
    end.endpoint.takeEvents();
    expect(owner.log).toEqual(['open']);
    end.receive(CLIENT, 3_000, 80, { sequence: IRS + 1, flags: RST });
    end.endpoint.takeEvents();
    expect(owner.log).toEqual(['open', 'reset']);
    expect(owner.open!.isOpen).toBe(false);
    expect(end.take()).toEqual([]);
    expect(end.endpoint.sizes).toMatchObject({ halfOpen: 0, timers: 0 });
  });

  test('ends after 127 s', () => {
    const { end, owner } = held();
    end.pass(126_000);
    expect(owner.log).toEqual(['open']);
    end.pass(2_000);
    expect(owner.log).toEqual(['open', 'timed-out']);
    expect(end.endpoint.sizes.halfOpen).toBe(0);
    expect(end.endpoint.deadline).toBe(Number.POSITIVE_INFINITY);
  });

  test('ends when nobody completes it after its SYN-ACK', () => {
    const { end, owner } = held();
    owner.open!.accept();
    end.pass(64_000);
    expect(owner.log).toEqual(['open', 'timed-out']);
  });

  test('gives way to a new connection of the same flow, whose SYN has another number', () => {
    const { end, holder, owner } = held();
    syn(end, CLIENT, 3_000, IRS + 5_000);
    expect(owner.log).toEqual(['open', 'reset']);
    const other = holder.owners[1]!;
    other.open!.accept();
    expect(end.take()).toMatchObject([{ acknowledgement: IRS + 5_001 }]);
  });

  test('answers an ACK as if there were nothing, and drops what has no flag', () => {
    const { end, owner } = held();
    end.receive(CLIENT, 3_000, 80, { sequence: IRS + 1, acknowledgment: 77, flags: ACK });
    end.receive(CLIENT, 3_000, 80, { sequence: IRS, acknowledgment: 78, flags: SYN | ACK });
    end.receive(CLIENT, 3_000, 80, { sequence: IRS + 1, flags: 0 });
    expect(end.take()).toMatchObject([
      { flags: RST, sequence: 77 },
      { flags: RST, sequence: 78 },
    ]);
    end.endpoint.takeEvents();
    expect(owner.log).toEqual(['open']);
    expect(end.endpoint.counters.dropBadAck).toBe(1);
  });

  test('that ends before its owner knows of it is reported as ended alone', () => {
    const { end, holder } = start();
    end.receive(CLIENT, 3_000, 80, { sequence: IRS, flags: SYN });
    end.receive(CLIENT, 3_000, 80, { sequence: IRS + 1, flags: RST });
    end.endpoint.takeEvents();
    expect(holder.owners[0]!.log).toEqual(['reset']);
  });

  test('whose connection ends before its owner knows of it is reported as ended', () => {
    const { end, owner } = held();
    owner.open!.accept();
    const [synAck] = end.take();
    const acknowledgment = synAck!.sequence + 1;
    end.receive(CLIENT, 3_000, 80, { sequence: IRS + 1, acknowledgment, flags: ACK });
    end.receive(CLIENT, 3_000, 80, { sequence: IRS + 1, flags: RST });
    end.endpoint.takeEvents();
    expect(owner.log).toEqual(['open', 'reset']);
  });

  test('ends with its endpoint', () => {
    const { end, owner } = held();
    end.endpoint.destroy();
    end.endpoint.takeEvents();
    expect(owner.log).toEqual(['open', 'aborted']);
    expect(end.endpoint.sizes.halfOpen).toBe(0);
  });
});

describe('who gets a SYN', () => {
  test('a listener comes first, and its connections are no concern of the holder', () => {
    const { end, holder } = start();
    const owner = new Owner();
    end.endpoint.listen(undefined, 80, owner, 1);
    end.peer(CLIENT, 3_000, 80);
    expect(owner.log).toEqual(['connection']);
    expect(holder.owners).toEqual([]);
  });

  test('a listener for all addresses does not get what goes to others', () => {
    const { end, holder } = start();
    end.endpoint.listen(undefined, 80, new Owner(), 1);
    holder.isOwn = () => false;
    syn(end);
    expect(holder.owners).toHaveLength(1);
  });

  test('what the holder refuses is reset, what it drops is counted', () => {
    const { end, holder } = start();
    holder.answer = 'refuse';
    syn(end);
    expect(end.take()).toMatchObject([{ flags: RST | ACK, acknowledgement: IRS + 1 }]);
    holder.answer = 'drop';
    syn(end);
    expect(end.take()).toEqual([]);
    expect(end.endpoint.counters.dropSyn).toBe(1);
    expect(end.endpoint.sizes.halfOpen).toBe(0);
  });
});

describe('the bounds', () => {
  test('when the table is full, the oldest goes, and its owner is told', () => {
    const { end, holder } = start({ halfOpen: 4, halfOpenPerClient: 4 });
    for (let i = 0; i < 6; i++) syn(end, `10.0.1.${i + 1}`);
    expect(holder.owners.map(({ log }) => log.at(-1))).toEqual([
      'evicted',
      'evicted',
      'open',
      'open',
      'open',
      'open',
    ]);
    expect(end.endpoint.sizes.halfOpen).toBe(4);
    expect(end.endpoint.counters.dropSyn).toBe(2);
  });

  test('one client has its share, and what is beyond it ends at once', () => {
    const { end, holder } = start({ halfOpen: 8, halfOpenPerClient: 2 });
    for (let i = 0; i < 6; i++) syn(end, CLIENT, 3_000 + i);
    expect(holder.owners.map(({ log }) => log.join())).toEqual([
      'open',
      'open',
      'open',
      'open',
      'evicted',
      'evicted',
    ]);
    syn(end, '10.0.0.3');
    expect(holder.owners.at(-1)!.log).toEqual(['open']);
  });

  test('one group has a quarter of the handshakes and of the connections', () => {
    const { end, holder } = start({ halfOpen: 16, connections: 32 });
    end.endpoint.groupOf = (remote) => remote.toString().slice(0, 4);
    const isHeld = (): boolean => holder.owners.at(-1)!.log.join() === 'open';
    syn(end, '10.2.0.8');
    for (let i = 0; i < 4; i++) {
      syn(end, `10.1.0.${i}`);
      expect(isHeld()).toBe(true);
    }
    syn(end, '10.1.0.9');
    expect(isHeld()).toBe(false);
    syn(end, '10.2.0.9');
    expect(isHeld()).toBe(true);
    for (const { open } of holder.owners) open?.drop();
    const connect = (address: string): void => {
      end.receive(address, 3_000, 80, { sequence: IRS, flags: SYN });
      end.endpoint.takeEvents();
      holder.owners.at(-1)!.open!.accept();
      const [synAck] = end.take();
      const acknowledgment = synAck!.sequence + 1;
      end.receive(address, 3_000, 80, { sequence: IRS + 1, acknowledgment, flags: ACK });
      end.endpoint.takeEvents();
    };
    connect('10.2.0.2');
    for (let i = 0; i < 8; i++) connect(`10.1.1.${i}`);
    const count = holder.owners.length;
    syn(end, '10.1.2.9');
    // Not even asked for.
    expect(holder.owners).toHaveLength(count);
    connect('10.2.0.1');
    expect(end.endpoint.sizes.connections).toBe(10);
    const isOfSite = ({ connection }: Owner) =>
      connection?.flow.remote.toString().startsWith('10.1.');
    holder.owners.find(isOfSite)!.connection!.abort();
    syn(end, '10.1.2.9');
    expect(holder.owners).toHaveLength(count + 2);
  });
});

test('an owner that throws does not keep the others from learning', () => {
  const { end, holder } = start();
  const fail = new Error('of an owner');
  end.receive(CLIENT, 3_000, 80, { sequence: IRS, flags: SYN });
  end.receive(CLIENT, 3_001, 80, { sequence: IRS, flags: SYN });
  let events = 0;
  end.endpoint.onEvents = () => events++;
  holder.owners[0]!.onTcpOpen = () => {
    throw fail;
  };
  expect(() => end.endpoint.takeEvents()).toThrow(fail);
  expect(events).toBe(1);
  end.endpoint.takeEvents();
  expect(holder.owners[1]!.log).toEqual(['open']);
});

test('the owners know what is in the table, whatever comes', () => {
  for (let seed = 1; seed <= 20; seed++) {
    const random = new Random(seed);
    const { end, holder } = start({ halfOpen: 6, halfOpenPerClient: 3, connections: 5 });
    let most = 0;
    for (let step = 0; step < 150; step++) {
      const source = `10.0.2.${random.below(3)}`;
      const port = 3_000 + random.below(4);
      const sequence = IRS + random.pick([0, 0, 0, 1, 2]);
      const acknowledgment = random.pick([0, 5, ...synAcks(end).map((it) => it.sequence + 1)]);
      const flags = random.pick([SYN, SYN, SYN, RST, ACK, SYN | ACK, 0]);
      end.receive(source, port, 80, { sequence, acknowledgment, flags, window: 100 });
      if (random.chance(0.7)) end.endpoint.takeEvents();
      const owner = random.pick([undefined, ...holder.owners]);
      random.pick([
        () => owner?.open?.accept(),
        () => owner?.open?.accept(),
        () => owner?.open?.refuse(),
        () => owner?.open?.drop(),
        () => owner?.connection?.abort(),
        () => end.pass(random.pick([10, 1_000, 40_000])),
      ])();
      const { sizes } = end.endpoint;
      expect(sizes.halfOpen).toBeLessThanOrEqual(6);
      expect(sizes.connections).toBeLessThanOrEqual(5);
      // What a owner knows to be open is in the table, and the other way round.
      end.endpoint.takeEvents();
      const open = holder.owners.filter((it) => it.open?.isOpen);
      expect(open).toHaveLength(end.endpoint.sizes.halfOpen);
      most = Math.max(most, open.length);
    }
    for (const { log } of holder.owners) expect(LOGS).toContain(log.join());
    expect(most).toBeGreaterThan(2);
    for (const { connection } of holder.owners) connection?.abort();
    end.pass(200_000);
    expect(Object.values(end.endpoint.sizes)).toEqual([0, 0, 0, 0]);
  }
});

/** What an owner may learn, in all. */
const LOGS: readonly string[] = [
  '',
  'open',
  'open,connection',
  ...['reset', 'evicted', 'timed-out'].flatMap((end) => [end, `open,${end}`]),
];

function synAcks(end: RawEnd): Sent[] {
  return end.take().filter(({ flags }) => flags === (SYN | ACK));
}
