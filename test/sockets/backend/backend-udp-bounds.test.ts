/** How many flows a UDP backend has, for how long, whose they are, and what they hold. */
import { expect, test } from 'vitest';
import { HostDescriptors } from '../../../src/sockets/backend/host-descriptors.ts';
import { UdpVerdict } from '../../../src/sockets/udp/udp.ts';
import { Random } from '../../support/random.ts';
import { address } from '../udp/udp-kit.ts';
import { CLIENT, PORT, SERVICE, UdpBackendKit } from './backend-udp-kit.ts';

/** The site of a client is the second byte of its address. */
const bySite = { siteOf: (client: { toString(): string }) => client.toString().split('.')[1] };

function openHosts(kit: UdpBackendKit): number[] {
  return kit.hosts.filter(({ isClosed }) => !isClosed).map(({ target }) => target.client.port);
}

test('a flow ends when nothing has passed for 300 s, and not before', () => {
  const kit = new UdpBackendKit();
  kit.send('1', { clientPort: 1 });
  kit.pass(100_000);
  kit.send('2', { clientPort: 2 });
  kit.pass(150_000);
  // A reply counts, as a request does.
  kit.hosts[0]!.reply(Buffer.from('reply'));
  kit.pass(249_999);
  expect(openHosts(kit)).toEqual([1]);
  expect(kit.backend.counters.idle).toBe(1);
  kit.pass(50_000);
  expect(openHosts(kit)).toEqual([1]);
  kit.pass(1);
  expect(openHosts(kit)).toEqual([]);
  expect(kit.backend.counters.idle).toBe(2);
  expect(kit.backend.size).toBe(0);
  expect(kit.clock.delays).toEqual([]);
});

test('the time is an option, and a flow whose socket is never connected ends too', () => {
  const kit = new UdpBackendKit({ idleMs: 1000 });
  kit.isAccepting = false;
  for (let i = 0; i < 9; i++) {
    kit.send('again');
    kit.pass(100);
  }
  expect(kit.backend.size).toBe(1);
  kit.pass(100);
  expect(kit.backend.size).toBe(0);
  expect(kit.host.isClosed).toBe(true);
  expect(kit.backend.counters).toMatchObject({ idle: 1, serviceDrops: 9 });
  expect(kit.udp.memory.bytes).toBe(0);
});

test('one timer stands for all flows', () => {
  const kit = new UdpBackendKit();
  for (let clientPort = 1; clientPort <= 50; clientPort++) kit.send('x', { clientPort });
  expect(kit.clock.delays).toEqual([300_000]);
  kit.backend.close();
  expect(kit.clock.delays).toEqual([]);
});

test('when there is no place, the flow goes whose last datagram is the longest time ago', () => {
  const kit = new UdpBackendKit({ maxFlows: 3 });
  for (const clientPort of [1, 2, 3, 1, 4]) kit.send('x', { clientPort });
  expect(openHosts(kit)).toEqual([1, 3, 4]);
  kit.hosts[2]!.reply(Buffer.from('reply'));
  kit.send('x', { clientPort: 5 });
  expect(openHosts(kit)).toEqual([3, 4, 5]);
  expect(kit.backend.size).toBe(3);
  expect(kit.backend.counters).toMatchObject({ opened: 5, evicted: 2 });
});

test('there may be 4,096 flows by default', () => {
  const kit = new UdpBackendKit();
  for (let clientPort = 1; clientPort <= 4100; clientPort++) {
    if (clientPort === 4000) kit.pass(1000);
    kit.send('x', { clientPort });
  }
  expect(kit.backend.size).toBe(4096);
  expect(openHosts(kit)[0]).toBe(5);
});

test('so many flows begin in a second, a quarter of them of one site; the rest is dropped without a word', () => {
  const kit = new UdpBackendKit({ maxFlows: 65_536, ...bySite });
  const open = (site: number, count: number): number => {
    const before = kit.backend.counters.opened;
    for (let i = 0; i < count; i++) {
      kit.send('x', { client: `10.${site}.0.1`, clientPort: 1 + ((before + i) % 65_535) });
    }
    return kit.backend.counters.opened - before;
  };
  expect(open(1, 1100)).toBe(1024);
  expect(kit.send('x', { client: '10.1.0.2' })).toBe(UdpVerdict.Dropped);
  expect(kit.backend.counters.limited).toBe(77);
  // A flow that is there goes on.
  expect(kit.send('y', { client: '10.1.0.1', clientPort: 1 })).toBe(UdpVerdict.Taken);
  expect([2, 3, 4, 5].map((site) => open(site, 1100))).toEqual([1024, 1024, 1024, 0]);
  kit.pass(500);
  expect([1, 5].map((site) => open(site, 1100))).toEqual([512, 512]);
  expect(kit.reports).toEqual([]);
});

test('flows take descriptors, of which a site has a quarter, and TCP connections take them too', () => {
  const descriptors = new HostDescriptors(8);
  const kit = new UdpBackendKit({ descriptors, ...bySite });
  const send = (site: number, clientPort: number): UdpVerdict =>
    kit.send('x', { client: `10.${site}.0.1`, clientPort });
  // The third one takes the place of the first.
  for (const port of [11, 12, 13]) expect(send(1, port)).toBe(UdpVerdict.Taken);
  expect(openHosts(kit)).toEqual([12, 13]);
  expect(kit.backend.counters.evicted).toBe(1);
  for (const site of ['2', '2', '3', '3', '4']) descriptors.add(site);
  expect(send(2, 21)).toBe(UdpVerdict.Dropped);
  expect(send(4, 41)).toBe(UdpVerdict.Taken);
  expect(descriptors.used).toBe(8);
  expect(send(5, 51)).toBe(UdpVerdict.Dropped);
  expect(kit.backend.counters.limited).toBe(2);
  expect(kit.reports).toEqual([]);
  descriptors.remove('2');
  expect(send(2, 22)).toBe(UdpVerdict.Taken);
  kit.pass(300_000);
  expect(descriptors.used).toBe(4);
});

test('what a flow has queued for its client is sent although another flow has its place', () => {
  const kit = new UdpBackendKit({ maxFlows: 1 });
  kit.send('x', { clientPort: 1 });
  kit.host.reply(Buffer.from('reply'));
  kit.send('x', { clientPort: 2 });
  expect(kit.readAll()).toHaveLength(1);
});

test('a site that is alone may have all places, and gives them back when others come', () => {
  const kit = new UdpBackendKit({ maxFlows: 16, ...bySite });
  for (let clientPort = 1; clientPort <= 16; clientPort++) {
    kit.send('x', { client: '10.1.0.1', clientPort });
  }
  expect(kit.backend.size).toBe(16);
  for (let clientPort = 101; clientPort <= 104; clientPort++) {
    kit.send('x', { client: '10.2.0.1', clientPort });
  }
  expect(openHosts(kit)).toEqual([
    ...Array.from({ length: 12 }, (_, i) => i + 5),
    101,
    102,
    103,
    104,
  ]);
  // Now each of the two gets a new place only for an old one of its own.
  kit.send('x', { client: '10.2.0.2', clientPort: 105 });
  kit.send('x', { client: '10.1.0.2', clientPort: 17 });
  expect(openHosts(kit).slice(-6)).toEqual([16, 102, 103, 104, 105, 17]);
});

test('a flood of one site from all its addresses ends no flow of another', () => {
  const kit = new UdpBackendKit({ maxFlows: 64, ...bySite });
  const random = new Random(1);
  const quiet = { client: '10.2.0.1', clientPort: 7 };
  kit.send('first', quiet);
  for (let i = 0; i < 5000; i++) {
    const client = `10.1.${random.below(256)}.${random.between(1, 254)}`;
    kit.arrive('flood', { client, clientPort: random.between(1, 65_535) });
    if (i % 100 === 0) kit.udp.takeEvents();
  }
  kit.send('last', quiet);
  expect(kit.hosts[0]!.sent.map(String)).toEqual(['first', 'last']);
  expect(kit.hosts[0]!.isClosed).toBe(false);
  expect(kit.backend.size).toBeLessThanOrEqual(17);
  kit.hosts[0]!.reply(Buffer.from('reply'));
  expect(kit.readAll()).toHaveLength(1);
});

test('a site whose datagrams wait takes a part of the memory, and others have room', () => {
  const kit = new UdpBackendKit({ siteBytes: 400_000, ...bySite });
  kit.isAccepting = false;
  for (let i = 0; i < 1000; i++) {
    kit.arrive(Buffer.alloc(1000), { client: '10.1.0.1', clientPort: 1 + (i % 4) });
  }
  expect(kit.udp.memory.bytes).toBeLessThanOrEqual(400_000);
  expect(kit.udp.counters.memoryDrops).toBeGreaterThan(600);
  expect(kit.udp.counters.receiveDrops).toBe(kit.udp.counters.memoryDrops);
  kit.isAccepting = true;
  kit.send('hello', { client: '10.2.0.1' });
  expect(kit.host.sent.map(String)).toEqual(['hello']);
});

test('withdrawal of a service or of a client ends their flows at once, and sends nothing more', () => {
  const kit = new UdpBackendKit({ mtu: 1500 });
  const other = { service: '10.7.0.2' };
  kit.isAllowed = () => true;
  kit.send('x', { clientPort: 1 });
  kit.send('x', { clientPort: 2, port: PORT + 1 });
  kit.send('x', { clientPort: 3, ...other });
  kit.send('x', { client: '10.5.0.2', clientPort: 4, ...other });
  for (const host of kit.hosts) host.reply(Buffer.alloc(4000));
  // The rest of a datagram that is cut would be of the withdrawn flow too.
  kit.read();
  kit.arrive('waits', { clientPort: 1 });
  kit.backend.withdraw(address(SERVICE[4]), ({ localPort }) => localPort === PORT);
  expect(openHosts(kit)).toEqual([2, 3, 4]);
  expect(kit.readAll()).toHaveLength(9);
  kit.hosts[1]!.reply(Buffer.alloc(4000));
  kit.backend.withdraw(address(CLIENT[4]));
  expect(openHosts(kit)).toEqual([4]);
  expect(kit.readAll()).toEqual([]);
  kit.backend.withdraw(address('10.9.9.9'));
  kit.backend.withdrawWhere(({ remotePort }) => remotePort === 4);
  expect(kit.backend.size).toBe(0);
  expect(kit.backend.counters).toMatchObject({ withdrawn: 4, serviceDrops: 1 });
  kit.udp.takeEvents();
  expect(kit.udp.memory.bytes).toBe(0);
  expect(kit.hosts).toHaveLength(4);
});

test('after `close` there are no flows, and datagrams are refused', () => {
  const kit = new UdpBackendKit();
  for (let clientPort = 1; clientPort <= 5; clientPort++) kit.send('x', { clientPort });
  kit.backend.close();
  kit.backend.close();
  expect(openHosts(kit)).toEqual([]);
  expect(kit.send('x')).toBe(UdpVerdict.Closed);
  expect(kit.udp.memory.bytes).toBe(0);
});

test('the flows end with their stack', () => {
  const kit = new UdpBackendKit();
  kit.send('x');
  kit.host.reply(Buffer.from('reply'));
  kit.udp.close();
  kit.udp.takeEvents();
  expect(kit.host.isClosed).toBe(true);
  expect(kit.backend.size).toBe(0);
  expect(kit.send('x', { clientPort: 9 })).toBe(UdpVerdict.Closed);
  expect(kit.udp.memory.bytes).toBe(0);
});

test('whatever happens to flows, nothing is left of those that have ended', () => {
  for (let seed = 1; seed <= 10; seed++) {
    const random = new Random(seed);
    const kit = new UdpBackendKit({ maxFlows: 12, ...bySite });
    for (let i = 0; i < 600; i++) {
      kit.isAccepting = random.below(2) === 0;
      const client = `10.${random.between(1, 5)}.0.1`;
      const host = kit.hosts.length > 0 ? random.pick(kit.hosts.slice(-12)) : undefined;
      const action = random.below(9);
      if (action < 4) kit.arrive('x', { client, clientPort: random.between(1, 9) });
      else if (action === 4) kit.udp.takeEvents();
      else if (action === 5) kit.read();
      else if (action === 6 && host?.isClosed === false) {
        if (host.isConnected) host.reply(Buffer.from('y'));
        else host.accept();
      } else if (action === 7 && host?.isClosed === false) {
        const code = random.pick(['ECONNREFUSED', 'EMFILE']);
        host.emit('error', Object.assign(new Error(code), { code }));
      } else if (action === 8) {
        if (random.below(4) === 0) kit.backend.withdraw(address(client));
        else kit.pass(random.below(100_000));
      }
      expect(kit.backend.size).toBeLessThanOrEqual(12);
      expect(kit.hosts.filter(({ isClosed }) => !isClosed).length).toBeLessThanOrEqual(
        kit.backend.size
      );
    }
    kit.udp.takeEvents();
    kit.pass(300_000);
    kit.udp.takeEvents();
    kit.udp.expire();
    kit.readAll();
    expect(kit.backend.size).toBe(0);
    const { withdrawn } = kit.backend.counters;
    kit.backend.withdrawWhere(() => true);
    expect(kit.backend.counters.withdrawn).toBe(withdrawn);
    expect(kit.hosts.every(({ isClosed }) => isClosed)).toBe(true);
    expect(kit.udp.memory.bytes).toBe(0);
    expect(kit.clock.delays).toEqual([]);
  }
});
