/**
 * Measures how long the worst frame of each kind from a site blocks the cloud gateway's event loop: in
 * translation, and in the system calls that write it to a device whose kernel has to segment or fragment it.
 * Runs itself in its own network namespaces; needs root or the right to create user namespaces.
 *
 * `npm run bench:frames [-- --json]`. Ends with status 1 if a median is above 2 ms.
 */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { CloudDataPlane } from '../src/dataplane/index.ts';
import { LinuxTun, type PacketDevice } from '../src/device/index.ts';
import { PacketTranslator, type TranslationPlanInput } from '../src/translator/index.ts';
import type { Tunnel } from '../src/tunnel/index.ts';
import { type Ends, tcpPacket, udpPacket } from '../test/support/packets.ts';
import { framed, type VnetHeader } from '../test/support/vnet.ts';
import { median } from './gateway/median.ts';

const ROUNDS = 200;
const LIMIT_MS = 2;
const PORTS = { sourcePort: 40_000, destinationPort: 7000 };

interface Result {
  readonly device: string;
  readonly frame: string;
  readonly medianMs: number;
  readonly maxMs: number;
}

interface Kind {
  readonly name: string;
  readonly frame: Uint8Array;
}

function planOf(mtu: number | undefined): TranslationPlanInput {
  const addresses = { sources: ['10.0.0.0/24', 'fd00::/64'], pools: ['10.64.0.0/24', 'fd64::/64'] };
  const service = { 4: '10.0.0.5', 6: 'fd00::5' };
  return {
    realms: [
      { name: 'cloud', ...addresses, ...(mtu === undefined ? {} : { mtu }) },
      { name: 'site', ...addresses },
    ],
    presences: [
      { realm: 'site', address: '10.64.0.1', of: { realm: 'cloud', address: service[4] } },
      { realm: 'site', address: 'fd64::1', of: { realm: 'cloud', address: service[6] } },
      { realm: 'site', address: '10.64.0.2', of: { realm: 'cloud', address: 'fd00::6' } },
      { realm: 'cloud', address: '10.64.0.9', of: { realm: 'site', address: '10.0.0.9' } },
      { realm: 'cloud', address: 'fd64::9', of: { realm: 'site', address: 'fd00::9' } },
      { realm: 'cloud', address: 'fd64::a', of: { realm: 'site', address: '10.0.0.9' } },
    ],
    permits: [service[4], service[6], 'fd00::6'].map((address) => ({
      realm: 'site',
      service: { realm: 'cloud', address },
      ports: ['tcp/7000', 'udp/7000'],
    })),
  };
}

const TO_IPV4: Ends = { source: '10.0.0.9', destination: '10.64.0.1' };
const TO_IPV6: Ends = { source: 'fd00::9', destination: 'fd64::1' };
const FROM_4_TO_6: Ends = { source: '10.0.0.9', destination: '10.64.0.2' };

function superPacket(ends: Ends, isTcp: boolean, payload: number, gsoSize: number): Uint8Array {
  const isIpv4 = !ends.source.includes(':');
  const segment = { ...PORTS, payload: new Uint8Array(payload), checksum: 'partial' } as const;
  const header: VnetHeader = {
    flags: 1,
    gsoType: isTcp ? (isIpv4 ? 1 : 4) : 5,
    gsoSize,
    checksumStart: isIpv4 ? 20 : 40,
    checksumOffset: isTcp ? 16 : 6,
  };
  return framed(isTcp ? tcpPacket(ends, segment) : udpPacket(ends, segment), header);
}

const KINDS: readonly Kind[] = [
  { name: 'TCP over IPv4, 304 segments', frame: superPacket(TO_IPV4, true, 65_495, 216) },
  { name: 'TCP over IPv4, 128 segments of a byte', frame: superPacket(TO_IPV4, true, 128, 1) },
  { name: 'TCP over IPv6, 303 segments', frame: superPacket(TO_IPV6, true, 65_448, 216) },
  {
    name: 'TCP from IPv4 to IPv6, 303 segments',
    frame: superPacket(FROM_4_TO_6, true, 65_420, 216),
  },
  { name: 'UDP over IPv4, 128 datagrams', frame: superPacket(TO_IPV4, false, 65_408, 511) },
  { name: 'UDP over IPv6, 128 datagrams', frame: superPacket(TO_IPV6, false, 65_408, 511) },
  {
    name: 'a UDP datagram of 64 KiB, in fragments',
    frame: framed(udpPacket(TO_IPV4, { ...PORTS, payload: new Uint8Array(65_507), fragment: 0 })),
  },
];
/** Frames that the limit of segments refuses: written to the kernel without translation. */
const REFUSED: Kind = {
  name: 'refused now: TCP over IPv4, 65,495 segments of a byte (the write alone)',
  frame: superPacket({ source: '10.64.0.9', destination: '10.0.0.5' }, true, 65_495, 1),
};

/** Measures each kind from a site to the device. */
function measure(
  name: string,
  device: PacketDevice,
  kinds: readonly Kind[] = KINDS,
  mtu?: number
): Result[] {
  const translator = new PacketTranslator();
  translator.load(planOf(mtu));
  const plane = new CloudDataPlane({
    cloud: 'cloud',
    device,
    translator,
    admit: () => Promise.reject(new Error('nobody is new')),
  });
  // The site only sends.
  const refuse = {
    reserve: () => -1,
    commit: () => false,
    sendPacket: () => false,
    flush: () => {},
  };
  const tunnel = refuse as unknown as Tunnel;
  plane.attach('site', tunnel);
  return kinds.map(({ name: frame, frame: bytes }) => {
    const buffer = Buffer.alloc(256 + bytes.length);
    return summary(
      name,
      frame,
      () => {
        buffer.set(bytes, 256);
        const before = performance.now();
        tunnel.onPacket(buffer, 256, 256 + bytes.length);
        const elapsedMs = performance.now() - before;
        tunnel.onBatchEnd();
        return elapsedMs;
      },
      () => {
        const { Forward, ...others } = translator.counters(translator.realm('site'));
        const dropped = Object.values(others).reduce((sum, count) => sum + count, 0);
        if (dropped > 0 || Forward % ROUNDS !== 0) {
          throw new Error(`${name}, ${frame}: ${JSON.stringify({ Forward, ...others })}`);
        }
        const { dropUncut, dropDeviceFull } = plane.counters;
        if (dropUncut + dropDeviceFull > 0) {
          throw new Error(
            `${name}, ${frame}: ${dropUncut} not segmented, ${dropDeviceFull} not taken`
          );
        }
      }
    );
  });
}

function summary(device: string, frame: string, once: () => number, check = () => {}): Result {
  const times = Array.from({ length: ROUNDS }, once);
  check();
  return { device, frame, medianMs: median(times), maxMs: Math.max(...times) };
}

const ip = (...args: string[]): string => execFileSync('ip', args, { encoding: 'utf8' });

/** Sets up the namespace: the TUN, and a LAN whose interface has no segmentation offload. */
async function run(isJson: boolean): Promise<void> {
  const host: ChildProcess = spawn('unshare', ['--net', 'sh', '-c', 'echo ready; exec cat'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  });
  await once(host.stdout!, 'data');
  const results: Result[] = [];
  try {
    ip('link', 'set', 'lo', 'up');
    ip('link', 'add', 'lan0', 'type', 'veth', 'peer', 'name', 'eth0', 'netns', String(host.pid));
    execFileSync('ethtool', [
      '-K',
      'lan0',
      'tso',
      'off',
      'gso',
      'off',
      'tx-udp-segmentation',
      'off',
    ]);
    ip('address', 'add', '10.0.0.1/24', 'dev', 'lan0');
    ip('address', 'add', 'fd00::1/64', 'dev', 'lan0', 'nodad');
    ip('link', 'set', 'lan0', 'up');
    const inHost = (...args: string[]): void => {
      execFileSync('nsenter', ['--target', String(host.pid), '--net', 'ip', ...args]);
    };
    inHost('link', 'set', 'eth0', 'up');
    const [{ address }] = JSON.parse(
      execFileSync(
        'nsenter',
        ['--target', String(host.pid), '--net', 'ip', '-j', 'link', 'show', 'eth0'],
        { encoding: 'utf8' }
      )
    ) as [{ address: string }];
    // Static neighbour entries, because no host answers ARP.
    for (const each of ['10.0.0.5', 'fd00::5', 'fd00::6']) {
      ip('neigh', 'add', each, 'lladdr', address, 'dev', 'lan0', 'nud', 'permanent');
    }
    const open = async (name: string, offload: boolean): Promise<LinuxTun> => {
      const tun = await LinuxTun.open({ name, offload });
      await tun.configure({ routes: ['10.64.0.0/24', 'fd64::/64'], lan: ['lan0'] });
      return tun;
    };
    const tun = await open('vp0', true);
    results.push(...measure('TUN, LAN without TSO', tun));
    results.push(
      ...measure('the same, in a realm that takes 576 bytes', tun, KINDS.slice(-1), 576)
    );
    results.push(
      summary('TUN, LAN without TSO', REFUSED.name, () => {
        const before = performance.now();
        tun.write(Buffer.from(REFUSED.frame), 0, REFUSED.frame.length);
        return performance.now() - before;
      })
    );
    await tun.close();
    const plain = await open('vp1', false);
    results.push(...measure('TUN without offloads', plain));
    await plain.close();
  } finally {
    host.kill('SIGKILL');
  }
  report(results, isJson);
}

function report(results: readonly Result[], isJson: boolean): void {
  if (isJson) console.log(JSON.stringify(results));
  for (const { device, frame, medianMs, maxMs } of isJson ? [] : results) {
    const times = [medianMs, maxMs].map((ms) => ms.toFixed(2).padStart(6)).join(' ');
    console.log(`${times} ms  ${device}: ${frame}`);
  }
  const slow = results.filter(
    ({ frame, medianMs }) => frame !== REFUSED.name && medianMs > LIMIT_MS
  );
  for (const { device, frame } of slow) console.error(`above ${LIMIT_MS} ms: ${device}: ${frame}`);
  process.exitCode = slow.length > 0 ? 1 : 0;
}

const isInside = process.env.VP_BENCH_INSIDE === '1';
if (isInside) {
  await run(process.argv.includes('--json'));
} else {
  const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
  const { status } = spawnSync(
    'unshare',
    [...user, '--net', process.execPath, ...process.execArgv, ...process.argv.slice(1)],
    { stdio: 'inherit', env: { ...process.env, VP_BENCH_INSIDE: '1' } }
  );
  process.exitCode = status ?? 1;
}
