/**
 * The path MTU behind a Linux router, which sends the ICMP errors: "fragmentation needed" and "packet too big".
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { ip, titled, useNamespace } from '../support/namespace.ts';
import { type ExchangeReport, exchange } from './exchange.ts';
import { Link, prepareNamespace, sysctl } from './link.ts';
import { LinuxPeer } from './linux-peer.ts';
import { segmentOf } from './tcp-header.ts';

const skipReason = await useNamespace();
const MIB = 1_048_576;

/** Behind the router, by IP version. */
const PEER = { 4: '10.77.200.2', 6: 'fd77:200::2' } as const;
const ROUTER = { 4: '10.77.200.1', 6: 'fd77:200::1' } as const;
const BITS = { 4: 24, 6: 64 } as const;
const HOST_BITS = { 4: 32, 6: 128 } as const;
const HEADERS = { 4: 40, 6: 60 } as const;

describe.skipIf(skipReason !== undefined)(titled('the stack behind a router', skipReason), () => {
  let holder: ChildProcess;
  let peer: LinuxPeer;

  /** The thread's namespace is the router; another one, behind it, has the peer. */
  beforeAll(async () => {
    prepareNamespace();
    holder = spawn('unshare', ['--net', 'sh', '-c', 'echo ready && exec cat'], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    await once(holder.stdout!, 'data');
    ip('link', 'add', 'router', 'type', 'veth', 'peer', 'name', 'behind', 'netns', `${holder.pid}`);
    sysctl('net.ipv6.conf.router.disable_ipv6=0');
    sysctl('net.ipv4.ip_forward=1');
    sysctl('net.ipv6.conf.all.forwarding=1');
    ip('link', 'set', 'router', 'up');
    const inside = ['nsenter', '--target', `${holder.pid}`, '--net'];
    const script = [
      'ip link set lo up; ip link set behind up',
      ...([4, 6] as const).flatMap((family) => [
        `ip address add ${PEER[family]}/${BITS[family]} dev behind ${family === 6 ? 'nodad' : ''}`,
        `ip -${family} route add default via ${ROUTER[family]}`,
      ]),
    ].join('\n');
    for (const family of [4, 6] as const) {
      const noCheck = family === 6 ? ['nodad'] : [];
      ip('address', 'add', `${ROUTER[family]}/${BITS[family]}`, 'dev', 'router', ...noCheck);
    }
    const [command, ...args] = [...inside, 'sh', '-ec', script];
    const [code] = await once(spawn(command!, args, { stdio: 'inherit' }), 'exit');
    expect(code).toBe(0);
    peer = await LinuxPeer.start(inside);
  });
  afterAll(() => {
    peer?.close();
    holder?.kill();
  });

  /** A lock makes the router obey it also for packets that it forwards. */
  function setMtu(family: 4 | 6, mtu: number): void {
    const prefix = `${PEER[family]}/${HOST_BITS[family]}`;
    ip(`-${family}`, 'route', 'replace', prefix, 'dev', 'router', 'mtu', 'lock', `${mtu}`);
  }

  const cells = ([4, 6] as const).flatMap((family) =>
    [true, false].flatMap((offload) => [0, 1].map((mib) => [family, offload, mib] as const))
  );

  test.each(cells)(
    'follows the path MTU over IPv%i, offload %s, after %i MiB',
    async (family, offload, mib) => {
      const mtu = 1300;
      setMtu(family, mib === 0 ? mtu : 1500);
      const link = await Link.open({ offload, behind: Object.values(PEER) });
      const { port, report: ending } = await peer.listen(PEER[family], { bytes: 4 * MIB, seed: 2 });
      ending.catch(() => {});
      const longest = { before: 0, after: 0 };
      let errors = 0;
      let sent = 0;
      let isNarrow = mib === 0;
      link.onPacket = (from, packet) => {
        const segment = segmentOf(packet);
        if (from === 'stack') {
          const { payload } = segment!;
          sent += payload;
          const key = errors === 0 ? 'before' : 'after';
          longest[key] = Math.max(longest[key], payload);
          if (isNarrow || sent < mib * MIB) return;
          isNarrow = true;
          setMtu(family, mtu);
        } else if (segment === undefined) {
          errors++;
          longest.after = 0;
        }
      };
      const socket = link.stack.connect({ host: PEER[family], port, allowHalfOpen: true });
      const report: ExchangeReport = await exchange(socket, { bytes: 4 * MIB, seed: 1 });
      const peerReport = await ending;
      expect(peerReport.received).toEqual(report.sent);
      expect(report.received).toEqual(peerReport.sent);
      expect(errors).toBeGreaterThan(0);
      if (!offload) {
        expect(longest.before).toBe(1500 - HEADERS[family] - 12);
        expect(longest.after).toBe(mtu - HEADERS[family] - 12);
      }
      const { timeouts, retransmittedBytes } = link.stack.tcp.counters;
      expect(timeouts).toBe(0);
      expect(retransmittedBytes).toBeLessThan(4 * MIB);
      await link.close();
    }
  );
});
