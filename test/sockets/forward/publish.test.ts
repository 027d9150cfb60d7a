/**
 * Services of a site at loopback addresses: real clients of this host, a stack that serves them.
 */
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import net from 'node:net';
import { afterEach, expect, test, vi } from 'vitest';
import type { Publication, PublishOptions } from '../../../src/sockets/forward/publish.ts';
import { LocalService } from '../../../src/sockets/forward/publish-service.ts';
import type { StackHost, StackSite } from '../../../src/sockets/site/site-view.ts';
import type { SocketStack } from '../../../src/sockets/stack.ts';
import { FakeClock } from '../../support/fake-clock.ts';
import { StackNetwork } from '../stack-network.ts';
import { catchUncaught } from '../uncaught.ts';
import { settled, until } from '../worlds.ts';

catchUncaught();
const closers: (() => unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0).reverse()) await close();
});

/** Addresses that no other process that runs these tests has. */
const LOOPBACK = `127.${100 + ((process.pid >>> 8) % 100)}.${process.pid & 255}.0/24`;

const site = (...hosts: StackHost[]): StackSite => ({
  sources: ['10.0.0.0/8', '2001:db8::/32'],
  pools: ['10.2.0.0/16', '2001:db8:2::/48'],
  zone: 'test',
  hosts,
});
const host = (name: string, ports: string[], ...addresses: string[]): StackHost => ({
  name,
  ports,
  addresses: addresses.length > 0 ? addresses : ['10.2.0.1'],
});
const WEB = host('web.test', ['tcp/8080']);
const RABBIT = host('rabbitmq.test', ['tcp/5672'], '2001:db8:2::1');

/** A stack with this site, and another one that says on each port which one it is. */
function scene(
  first: StackSite,
  { clock, say = Buffer.alloc(0) }: { clock?: FakeClock; say?: Buffer } = {}
): SocketStack {
  const network = new StackNetwork(clock);
  const near = network.stack('10.1.0.1', '2001:db8:1::1');
  const far = network.stack('10.2.0.1', '2001:db8:2::1');
  closers.push(() => near.close());
  closers.push(() => far.close());
  for (const port of [8080, 5672]) {
    far
      .createServer((socket) => {
        socket.on('error', () => {}).write(`this is ${socket.localAddress} ${port}`);
        socket.write(say);
      })
      .listen(port);
  }
  near.setSite(first);
  return near;
}

async function publish(near: SocketStack, options: PublishOptions = {}): Promise<Publication> {
  const publication = await near.publish({ loopback: LOOPBACK, ...options });
  closers.push(() => publication.close());
  return publication;
}

const entry = (publication: Publication, name: string) =>
  publication.entries().find((each) => each.name === name)!;

function connect(publication: Publication, name: string, port: number): net.Socket {
  const socket = net.connect(port, entry(publication, name).loopback!);
  closers.push(() => socket.destroy());
  return socket;
}

const changed = (publication: Publication): Promise<void> =>
  new Promise((resolve) => publication.once('change', resolve));

const said = async (socket: net.Socket): Promise<string> => String((await once(socket, 'data'))[0]);

test('each service has an address of its own, with its own port; IPv6 presences too', async () => {
  const near = scene(site(WEB, RABBIT, host('client.test', [])));
  const publication = await publish(near);
  const [rabbit, web] = publication.entries();
  expect(publication.entries()).toHaveLength(2);
  expect(rabbit).toMatchObject({
    name: 'rabbitmq.test',
    presences: ['2001:db8:2::1'],
    ports: [5672],
    notPublished: [],
  });
  expect(web).toMatchObject({ name: 'web.test', presences: ['10.2.0.1'], ports: [8080] });
  expect(web!.loopback).not.toBe(rabbit!.loopback);
  expect(publication.hosts()).toBe(
    `${rabbit!.loopback}\trabbitmq.test\n${web!.loopback}\tweb.test\n`
  );
  expect(await said(connect(publication, 'web.test', 8080))).toBe('this is 10.2.0.1 8080');
  expect(await said(connect(publication, 'rabbitmq.test', 5672))).toBe(
    'this is 2001:db8:2::1 5672'
  );
  expect(publication.counters).toMatchObject({
    services: 2,
    listening: 2,
    unbound: 0,
    overLimit: 0,
    open: 2,
    accepted: 2,
  });
});

test('a name has the same address after a restart, also beside other names', async () => {
  const first = await publish(scene(site(WEB, RABBIT)));
  const before = entry(first, 'web.test').loopback;
  await first.close();
  const second = await publish(scene(site(host('another.test', ['tcp/8080']), WEB)));
  expect(entry(second, 'web.test').loopback).toBe(before);
});

test('a service that appears is listened on; one that is withdrawn is closed and reset', async () => {
  const near = scene(site(WEB));
  const publication = await publish(near);
  const hosts = [publication.hosts()];
  publication.on('change', () => hosts.push(publication.hosts()));
  const web = connect(publication, 'web.test', 8080);
  await said(web);
  const { loopback } = entry(publication, 'web.test');
  near.setSite(site(WEB, RABBIT));
  await changed(publication);
  const rabbit = connect(publication, 'rabbitmq.test', 5672);
  await said(rabbit);
  const error = once(web, 'error');
  near.setSite(site(RABBIT));
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  const refused = net.connect(8080, loopback!);
  expect(await once(refused, 'error')).toMatchObject([{ code: 'ECONNREFUSED' }]);
  await until(() => hosts.length === 3);
  expect(hosts.map((text) => text.match(/\w+\.test/g))).toEqual([
    ['web.test'],
    ['rabbitmq.test', 'web.test'],
    ['rabbitmq.test'],
  ]);
  expect(rabbit.destroyed).toBe(false);
  // What is exposed again has its address again.
  near.setSite(site(WEB, RABBIT));
  await changed(publication);
  expect(entry(publication, 'web.test').loopback).toBe(loopback);
});

test.each([
  ['service', site()],
  ['port', site(host('web.test', ['tcp/5672']))],
])('a client that does not read is cut off when its %s is withdrawn', async (_, next) => {
  // More than the kernel and the stack hold, so that the socket of the presence is not read.
  const near = scene(site(WEB), { say: Buffer.alloc(64 * 1_048_576) });
  const publication = await publish(near);
  const web = connect(publication, 'web.test', 8080);
  // Some versions of libuv report a reset behind data as an end.
  web.on('error', () => {});
  const closed = new Promise((resolve) => web.once('close', resolve));
  await until(() => publication.counters.open === 1);
  await settled();
  near.setSite(next);
  await until(() => publication.counters.open === 0);
  web.resume();
  await closed;
});

test('a port that is withdrawn is closed, and the others go on', async () => {
  const near = scene(site(host('web.test', ['tcp/8080', 'tcp/5672'])));
  const publication = await publish(near);
  const [one, other] = [8080, 5672].map((port) => connect(publication, 'web.test', port));
  await Promise.all([said(one!), said(other!)]);
  const error = once(other!, 'error');
  near.setSite(site(WEB));
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  expect(entry(publication, 'web.test').ports).toEqual([8080]);
  await settled();
  expect(one!.destroyed).toBe(false);
});

test('a snapshot that says the same changes nothing', async () => {
  const near = scene(site(WEB));
  const publication = await publish(near);
  const onChange = vi.fn();
  publication.on('change', onChange);
  const socket = connect(publication, 'web.test', 8080);
  await said(socket);
  near.setSite(site({ ...WEB }));
  await publication.settled();
  await settled();
  expect(onChange).not.toHaveBeenCalled();
  expect(socket.destroyed).toBe(false);
});

test('a snapshot that says the same, in whatever order, touches no service', async () => {
  const near = scene(site(WEB, RABBIT));
  const publication = await publish(near);
  const update = vi.spyOn(LocalService.prototype, 'update');
  closers.push(() => update.mockRestore());
  near.setSite(site({ ...RABBIT, addresses: ['2001:DB8:2:0::1'] }, host('WEB.test', ['tcp/8080'])));
  expect(update).not.toHaveBeenCalled();
  // What has changed is touched, and nothing else; what is withdrawn is closed.
  const others: [next: StackSite, touched: number][] = [
    [site({ ...WEB, addresses: ['10.2.0.2'] }, RABBIT), 1],
    [site(WEB, { ...RABBIT, ports: ['tcp/5672-5673'] }), 2],
    [site(WEB, { ...RABBIT, ports: ['udp/5672'] }), 1],
    [site(WEB, { ...RABBIT, name: 'other.test' }), 1],
    [site(WEB), 0],
  ];
  for (const [next, touched] of others) {
    update.mockClear();
    near.setSite(next);
    expect(update).toHaveBeenCalledTimes(touched);
    await publication.settled();
  }
  expect(publication.entries()).toHaveLength(1);
});

test('many listeners begin in several turns of the event loop, and a change meanwhile counts', async () => {
  const listen = vi.spyOn(net.Server.prototype, 'listen');
  closers.push(() => listen.mockRestore());
  const hosts = Array.from({ length: 150 }, (_, i) => host(`${i}.test`, ['tcp/8080']));
  const near = scene(site());
  const publication = await publish(near);
  listen.mockClear();
  near.setSite(site(...hosts, host('wide.test', ['tcp/2001-2100'])));
  const counts: number[] = [];
  let isSettled = false;
  void publication.settled().then(() => {
    isSettled = true;
  });
  while (!isSettled) {
    counts.push(listen.mock.calls.length);
    if (counts.length === 2) near.setSite(site(...hosts.slice(0, -1), WEB));
    await new Promise((resolve) => setImmediate(resolve));
  }
  counts.push(listen.mock.calls.length);
  const inTurns = counts.map((count, i) => count - (counts[i - 1] ?? 0));
  expect(Math.max(...inTurns)).toBeLessThanOrEqual(64);
  expect(publication.counters).toMatchObject({ services: 150, listening: 150, unbound: 0 });
  listen.mockClear();
  near.setSite(site(...hosts, WEB));
  await publication.settled();
  expect(listen).toHaveBeenCalledTimes(1);
});

test('a port that is taken is tried again with a snapshot that says the same', async () => {
  const near = scene(site(WEB));
  const probe = await publish(near);
  const { loopback } = entry(probe, 'web.test');
  await probe.close();
  const other = net.createServer().listen(8080, loopback);
  await once(other, 'listening');
  const publication = await publish(near);
  expect(publication.counters).toMatchObject({ listening: 0, unbound: 1 });
  other.close();
  await once(other, 'close');
  near.setSite(site({ ...WEB }));
  await publication.settled();
  expect(publication.counters).toMatchObject({ listening: 1, unbound: 0 });
});

test('a port that is taken is reported, and tried again every 30 s', async () => {
  const clock = new FakeClock();
  const near = scene(site(WEB), { clock });
  const probe = await publish(near);
  const { loopback } = entry(probe, 'web.test');
  await probe.close();
  const other = net.createServer().listen(8080, loopback);
  await once(other, 'listening');
  const publication = await publish(near);
  expect(entry(publication, 'web.test')).toMatchObject({ loopback, ports: [] });
  expect(entry(publication, 'web.test').notPublished).toEqual([
    {
      ports: 'tcp/8080',
      code: 'EADDRINUSE',
      reason: `listen EADDRINUSE: address already in use ${loopback}:8080`,
    },
  ]);
  expect(publication.counters).toMatchObject({ listening: 0, unbound: 1, failed: {} });
  expect(publication.hosts()).toBe('');
  await settled();
  clock.advance(30_000);
  await publication.settled();
  expect(publication.counters).toMatchObject({ listening: 0, unbound: 1 });
  other.close();
  await once(other, 'close');
  await settled();
  clock.advance(30_000);
  await publication.settled();
  expect(publication.counters).toMatchObject({ listening: 1, unbound: 0 });
  expect(entry(publication, 'web.test').notPublished).toEqual([]);
});

test('a port that only root may bind is reported', async (context) => {
  const least = Number(readFileSync('/proc/sys/net/ipv4/ip_unprivileged_port_start', 'utf8'));
  context.skip(least <= 80, 'all users of this machine may bind port 80');
  const near = scene(site(host('web.test', ['tcp/80', 'tcp/8080'])));
  const isRoot = process.geteuid?.() === 0;
  if (isRoot) process.seteuid!(65_534);
  try {
    const publication = await publish(near);
    expect(entry(publication, 'web.test')).toMatchObject({
      ports: [8080],
      notPublished: [{ ports: 'tcp/80', code: 'EACCES' }],
    });
  } finally {
    if (isRoot) process.seteuid!(0);
  }
});

test('UDP and ICMP are reported as not published', async () => {
  const ports = ['udp/53', 'icmp', 'tcp/8080', 'udp/5000-5999'];
  const publication = await publish(scene(site(host('web.test', ports))));
  const reason = 'only TCP is published';
  expect(entry(publication, 'web.test').ports).toEqual([8080]);
  expect(entry(publication, 'web.test').notPublished).toEqual([
    { ports: 'udp/53', code: undefined, reason },
    { ports: 'icmp', code: undefined, reason },
    { ports: 'udp/5000-5999', code: undefined, reason },
  ]);
});

test('a large range takes what the others leave, and the rest is reported', async () => {
  const wide = host('a.test', ['tcp/20000-60000', 'tcp/30000-65535']);
  const near = scene(site(wide));
  const publication = await publish(near, { maxListeners: 8 });
  expect(entry(publication, 'a.test').ports).toHaveLength(8);
  expect(entry(publication, 'a.test').notPublished).toEqual([
    {
      ports: 'tcp/20008-65535',
      code: undefined,
      reason: 'there are maxListeners listeners already',
    },
  ]);
  near.setSite(site(wide, WEB, RABBIT));
  await publication.settled();
  expect(entry(publication, 'a.test').ports).toEqual([20000, 20001, 20002, 20003, 20004, 20005]);
  expect(publication.counters).toMatchObject({ listening: 8, overLimit: 45_530 });
  expect(await said(connect(publication, 'web.test', 8080))).toBe('this is 10.2.0.1 8080');
});

test('a listener that makes room leaves its connections alone', async () => {
  const wide = host('a.test', ['tcp/8080-8081']);
  const near = scene(site(wide));
  const publication = await publish(near, { maxListeners: 2 });
  near.setSite(site(wide, RABBIT));
  await publication.settled();
  const socket = connect(publication, 'a.test', 8080);
  await said(socket);
  const other = host('b.test', ['tcp/5672']);
  near.setSite(site(wide, RABBIT, other));
  await publication.settled();
  expect(entry(publication, 'a.test').ports).toEqual([]);
  await settled();
  expect(socket.destroyed).toBe(false);
  const error = once(socket, 'error');
  await publication.close();
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
});

test('services for which there is no address are reported, and get the first that is free', async () => {
  const near = scene(site(WEB, RABBIT, host('z.test', ['tcp/8080'])));
  const publication = await publish(near, { loopback: LOOPBACK.replace('/24', '/30') });
  const without = publication.entries().find(({ loopback }) => loopback === undefined)!;
  expect(without.notPublished).toMatchObject([
    { reason: 'all addresses of the prefix are in use' },
  ]);
  expect(publication.counters).toMatchObject({ services: 3, listening: 2 });
  near.setSite(
    site(
      ...[WEB, RABBIT, host('z.test', ['tcp/8080'])].filter(
        ({ name }) => name === without.name || name === 'web.test'
      )
    )
  );
  await until(() => publication.counters.listening === 2);
});

test('the aliases of a name are in the file of hosts, also those that come later', async () => {
  const near = scene(site({ ...WEB, aliases: ['WWW.test', 'a b.test'] }, RABBIT));
  const publication = await publish(near);
  const { loopback } = entry(publication, 'web.test');
  expect(publication.hosts()).toContain(`${loopback}\tweb.test www.test\n`);
  near.setSite(site({ ...WEB, aliases: ['shop.test'] }, RABBIT));
  await changed(publication);
  expect(publication.hosts()).toContain(`${loopback}\tweb.test shop.test\n`);
});

test('a name that does not belong in a file of hosts is left out of it', async () => {
  const evil = host('a.test\n127.0.0.1 bank.test', ['tcp/8080']);
  const publication = await publish(scene(site(WEB, evil)));
  expect(publication.counters.listening).toBe(2);
  expect(publication.hosts()).toBe(`${entry(publication, 'web.test').loopback}\tweb.test\n`);
});

test('before the first snapshot nothing is published', async () => {
  const network = new StackNetwork();
  const near = network.stack('10.1.0.1');
  near.setSite(site());
  const publication = await publish(near);
  expect(publication.entries()).toEqual([]);
  near.setSite(site(WEB));
  await until(() => publication.counters.listening === 1);
  await near.close();
});

test('closing the stack closes what it publishes', async () => {
  const near = scene(site(WEB));
  const publication = await publish(near);
  const socket = connect(publication, 'web.test', 8080);
  await said(socket);
  const { loopback } = entry(publication, 'web.test');
  const error = once(socket, 'error');
  await near.close();
  expect(await error).toMatchObject([{ code: 'ECONNRESET' }]);
  const refused = net.connect(8080, loopback!);
  expect(await once(refused, 'error')).toMatchObject([{ code: 'ECONNREFUSED' }]);
  await publication.close();
  await expect(near.publish({ loopback: LOOPBACK })).rejects.toMatchObject({ code: 'ENETDOWN' });
});

test.each([
  [{ loopback: '10.0.0.0/16' }, 'loopback: expected a prefix of 4 addresses or more within'],
  [{ loopback: '127.0.0.0/16' }, 'loopback: expected a prefix'],
  [{ loopback: '127.64.0.1' }, 'loopback: expected a prefix'],
  [{ loopback: '::1/128' }, 'loopback: expected a prefix'],
  [{ maxListeners: 0 }, 'maxListeners: expected a whole number from 1 to 65535, got 0'],
  [{ ports: 1 }, 'ports: is not a known key'],
])('wrong options are refused: %j', async (options, message) => {
  const made = scene(site(WEB)).publish(options as never);
  await expect(made).rejects.toMatchObject({ code: 'ERR_PRESENCE_CONFIG' });
  await expect(made).rejects.toThrow(message);
});
