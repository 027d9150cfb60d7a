import { describe, expect, test } from 'vitest';
import { IpPrefix } from '../../src/base/prefix.ts';
import { Registry } from '../../src/registry/index.ts';
import { builtInMix } from '../../src/replay/built-in-mix.ts';
import {
  CaptureBytes,
  measureMix,
  type PlanSource,
  type ReplayReport,
  replayCapture,
  reportLines,
} from '../../src/replay/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import {
  echoPacket,
  fragment,
  icmpError,
  icmpMessage,
  repairIpv4Checksum,
  sctpPacket,
  tcpPacket,
  udp,
  udpPacket,
} from '../support/packets.ts';
import { Random } from '../support/random.ts';
import { pcapOf, type Written } from './capture-bytes.ts';

const EFFORT = { rounds: 1, roundMs: 0.1 };
const CLIENT = '10.0.0.9';
const SERVICE = '10.0.0.5';
const SYN = 2;
const SYN_ACK = 0x12;
const ACK = 0x10;
const RST_ACK = 0x14;

interface Ends {
  readonly source: string;
  readonly destination: string;
}
const forth = (source = CLIENT, destination = SERVICE): Ends => ({ source, destination });
const back = ({ source, destination }: Ends): Ends => ({
  source: destination,
  destination: source,
});

function tcpTo(port: number, flags: number, ends = forth(), client = 40_000): Uint8Array {
  return tcpPacket(ends, { sourcePort: client, destinationPort: port, flags });
}
function tcpFrom(port: number, flags: number, ends = back(forth()), client = 40_000): Uint8Array {
  return tcpPacket(ends, { sourcePort: port, destinationPort: client, flags });
}
/** A connection with one segment in each direction. */
function connection(port: number, ends = forth(), client = 40_000): Uint8Array[] {
  return [
    tcpTo(port, SYN, ends, client),
    tcpFrom(port, SYN_ACK, back(ends), client),
    tcpTo(port, ACK, ends, client),
    tcpFrom(port, ACK, back(ends), client),
  ];
}

function replay(
  packets: readonly (Uint8Array | Written)[],
  plan?: PlanSource,
  linkType = 101
): Promise<ReplayReport> {
  const written = packets.map((packet, i) =>
    packet instanceof Uint8Array ? { bytes: packet, timeMs: 1000 + i } : packet
  );
  const source = new CaptureBytes(pcapOf(written, { linkType }));
  return replayCapture(source, { effort: EFFORT, ...(plan && { plan }) });
}

const portsOf = ({ plan }: ReplayReport): Record<string, string[]> =>
  Object.fromEntries(plan.services.map(({ address, ports }) => [address, [...ports]]));

describe('the inferred plan', () => {
  test('lets every protocol pass in both directions that the translator knows', async () => {
    const six = forth('fd00::9', 'fd00::5');
    const report = await replay([
      ...connection(5672),
      ...connection(443, six),
      udpPacket(forth(), { sourcePort: 4000, destinationPort: 53 }),
      udpPacket(back(forth()), { sourcePort: 53, destinationPort: 4000 }),
      echoPacket(forth(), {}),
      echoPacket(back(forth()), { reply: true }),
      echoPacket(six, {}),
      echoPacket(back(six), { reply: true }),
      sctpPacket(forth(), {
        sourcePort: 9,
        destinationPort: 3868,
        payload: Uint8Array.of(1, 0, 0, 4),
      }),
      sctpPacket(back(forth()), {
        sourcePort: 3868,
        destinationPort: 9,
        payload: Uint8Array.of(2, 0, 0, 4),
      }),
    ]);
    expect(report.refusals).toEqual([]);
    expect(report.verdicts).toEqual({ Forward: 16 });
    expect(portsOf(report)).toEqual({
      [SERVICE]: ['icmp', 'sctp/3868', 'tcp/5672', 'udp/53'],
      'fd00::5': ['icmp', 'tcp/443'],
    });
    expect(report.timing.all).toMatchObject({ packets: 16 });
    expect(report.timing.leftOut).toBe(0);
  });

  test('takes the answering end for the service, whichever port is lower', async () => {
    expect(portsOf(await replay(connection(60_000, forth(), 100)))).toEqual({
      [SERVICE]: ['tcp/60000'],
    });
  });

  test('without a SYN takes the end that answers others, else the lower port', async () => {
    const joinedLate = [tcpFrom(60_000, ACK, back(forth('10.0.0.7')), 100)];
    expect(portsOf(await replay([...connection(60_000), ...joinedLate]))).toEqual({
      [SERVICE]: ['tcp/60000'],
    });
    expect(portsOf(await replay(joinedLate))).toEqual({ '10.0.0.7': ['tcp/100'] });
  });

  test('writes neighbouring ports as a range', async () => {
    const report = await replay([80, 81, 82, 90].flatMap((port) => connection(port)));
    expect(portsOf(report)).toEqual({ [SERVICE]: ['tcp/80-82', 'tcp/90'] });
  });

  test('lets a host be client and service, also of itself', async () => {
    const report = await replay([
      ...connection(80),
      ...connection(81, back(forth())),
      ...connection(82, forth(SERVICE, SERVICE)),
    ]);
    expect(report.verdicts).toEqual({ Forward: 12 });
  });

  test('uses pools that the capture has no host in', async () => {
    const report = await replay([
      ...connection(80, forth('198.18.3.4', '198.19.0.1')),
      ...connection(80, forth('2001:2:0:1::5', '2001:2:0:2::5')),
    ]);
    expect(report.verdicts).toEqual({ Forward: 8 });
  });

  test('refuses what nobody has answered, and says what to do', async () => {
    const { verdicts, refusals } = await replay([
      ...connection(80),
      tcpTo(81, SYN),
      tcpFrom(81, RST_ACK),
      tcpTo(5000, SYN, forth(CLIENT, '10.0.0.77')),
      udpPacket(forth(), { sourcePort: 4000, destinationPort: 54 }),
      icmpError(back(forth()), {
        type: 3,
        code: 3,
        quoted: udpPacket(forth(), { sourcePort: 4000, destinationPort: 54 }),
      }),
    ]);
    expect(verdicts).toEqual({ Forward: 4, DropNoPresence: 1, DropNotPermitted: 4 });
    expect(refusals.map(({ verdict, packets, examples }) => [verdict, packets, examples])).toEqual([
      [
        'DropNotPermitted',
        2,
        [
          { number: 5, from: '10.0.0.9:40000', to: '10.0.0.5:81', protocol: 'tcp' },
          { number: 6, from: '10.0.0.5:81', to: '10.0.0.9:40000', protocol: 'tcp' },
        ],
      ],
      [
        'DropNotPermitted',
        2,
        [
          { number: 8, from: '10.0.0.9:4000', to: '10.0.0.5:54', protocol: 'udp' },
          { number: 9, from: '10.0.0.5', to: '10.0.0.9', protocol: 'icmp' },
        ],
      ],
      [
        'DropNoPresence',
        1,
        [{ number: 7, from: '10.0.0.9:40000', to: '10.0.0.77:5000', protocol: 'tcp' }],
      ],
    ]);
    expect(refusals.map(({ remedy }) => remedy)).toEqual(
      ['tcp/81 of 10.0.0.5', 'udp/54 of 10.0.0.5', 'tcp/5000 of 10.0.0.77'].map(
        (service) =>
          `the capture shows no answer of ${service}, so that the plan has no such service: if there is one, expose it`
      )
    );
    expect(refusals[0]!.reason).toContain('no permit allows TCP from 10.0.0.9:40000 of "site"');
  });
});

describe('verdicts of the translator on what a capture has', () => {
  test('fragments, errors and their order', async () => {
    const payload = new Uint8Array(3000);
    const datagram = udp({ sourcePort: 4000, destinationPort: 53, payload });
    const quoted = udpPacket(back(forth()), { sourcePort: 53, destinationPort: 4000 });
    const report = await replay([
      fragment(forth(), datagram, [0, 1480]),
      fragment(forth(), datagram, [1480, 2960]),
      fragment(forth(), datagram, [2960, 3008]),
      fragment(forth(), datagram, [1480, 2960], { identification: 99 }),
      quoted,
      // The client's host says that the client is gone.
      icmpError(forth(), { type: 3, code: 3, quoted }),
      // A router on the way to the service says so.
      icmpError(forth('10.0.0.1', CLIENT), {
        type: 11,
        quoted: udpPacket(forth(), { sourcePort: 4000, destinationPort: 53 }),
      }),
    ]);
    expect(report.verdicts).toEqual({ Forward: 6, DropFragmentOrphan: 1 });
    expect(report.timing.classes.map(({ name }) => name)).toContain('fragments');
  });

  test('wrong, unsupported and group packets', async () => {
    const wrong = udpPacket(forth(), { sourcePort: 1, destinationPort: 2, headerChecksum: 0x1234 });
    const report = await replay([
      ...connection(80),
      wrong,
      icmpMessage(forth(), { type: 5, rest: Uint8Array.of(10, 0, 0, 1), payload: wrong }),
      udpPacket(forth(CLIENT, '224.0.0.251'), { sourcePort: 5353, destinationPort: 5353 }),
      udpPacket(forth('0.0.0.0', '255.255.255.255'), { sourcePort: 68, destinationPort: 67 }),
      udpPacket(forth('fe80::1', 'ff02::fb'), { sourcePort: 5353, destinationPort: 5353 }),
    ]);
    expect(report.verdicts).toEqual({
      Forward: 4,
      DropMalformed: 1,
      DropUnsupported: 1,
      DropNoPresence: 3,
    });
    expect(report.refusals.find(({ packets }) => packets === 3)!.remedy).toContain('broadcast');
    expect(report.refusals.flatMap(({ examples }) => examples)).toContainEqual({
      number: 6,
      from: CLIENT,
      to: SERVICE,
      protocol: 'icmp type 5',
    });
  });

  test('answers that come later than a session lasts, by the times of the capture', async () => {
    const request = udpPacket(forth(), { sourcePort: 4000, destinationPort: 53 });
    const answer = udpPacket(back(forth()), { sourcePort: 53, destinationPort: 4000 });
    const report = await replay([
      { bytes: request, timeMs: 1000 },
      { bytes: answer, timeMs: 2000 },
      { bytes: answer, timeMs: 302_000 + 1000 },
    ]);
    expect(report.verdicts).toEqual({ Forward: 2, DropNoSession: 1 });
    expect(report.capture.durationMs).toBe(302_000);
  });
});

describe('what a capture has changed', () => {
  test('a snap length: payloads are made up and counted, cut headers are not judged', async () => {
    const big = tcpPacket(forth(), {
      sourcePort: 40_000,
      destinationPort: 80,
      flags: ACK,
      payload: new Uint8Array(1000),
    });
    const report = await replay([
      ...connection(80),
      { bytes: big, captured: 40 },
      { bytes: big, captured: 39 },
      { bytes: big, captured: 10 },
    ]);
    expect(report.verdicts).toEqual({ Forward: 5 });
    expect(report.capture.paddedPackets).toBe(2);
    expect(report.notJudged).toEqual({ cut: 2, local: 0, beyond: 0 });
  });

  test('lengths and checksums that were left to the network card are computed, wrong ones stay', async () => {
    const whole = tcpTo(80, ACK);
    const noChecksum = whole.slice().fill(0, 10, 12);
    const noLength = whole.slice().fill(0, 2, 4);
    const wrong = whole.slice();
    wrong[10]! ^= 1;
    const report = await replay([...connection(80), noChecksum, noLength, wrong]);
    expect(report.capture.completedPackets).toBe(2);
    expect(report.verdicts).toEqual({ Forward: 6, DropMalformed: 1 });
  });

  test('padding of short Ethernet frames is no part of a packet', async () => {
    const frames = connection(80).map((packet) => {
      const frame = new Uint8Array(14 + 60);
      frame.set([8, 0], 12);
      frame.set(packet, 14);
      return frame;
    });
    expect((await replay(frames, undefined, 1)).verdicts).toEqual({ Forward: 4 });
  });

  test('other frames are counted by what they carry', async () => {
    const arp = new Uint8Array(60);
    arp.set([8, 6], 12);
    const frame = new Uint8Array(14 + 40);
    frame.set([8, 0], 12);
    frame.set(tcpTo(80, ACK), 14);
    const report = await replay([arp, frame, arp], undefined, 1);
    expect(report.capture).toMatchObject({ packets: 3, ipPackets: 1, otherFrames: { ARP: 2 } });
  });

  test('a capture without IP packets is refused', async () => {
    await expect(replay([])).rejects.toThrow('the capture has no packets');
    await expect(replay([new Uint8Array(60)], undefined, 1)).rejects.toThrow(
      'none of the 1 packets is an IP packet; they are 802.3 (such as spanning tree) (1)'
    );
    await expect(replay([{ bytes: tcpTo(80, SYN), captured: 12 }])).rejects.toThrow(
      'the headers of all 1 IP packets are cut'
    );
  });
});

describe('a given plan', () => {
  test('prefixes of the site: what stays within a realm is not judged', async () => {
    const plan: PlanSource = { kind: 'prefixes', prefixes: [IpPrefix.parse('10.0.1.0/24')] };
    const report = await replay(
      [
        ...connection(80, forth('10.0.1.7', '10.0.2.5')),
        ...connection(80, forth('10.0.2.7', '10.0.1.5')),
        ...connection(80, forth('10.0.1.7', '10.0.1.5')),
        ...connection(80, forth('10.0.2.7', '10.0.2.5')),
      ],
      plan
    );
    expect(report.verdicts).toEqual({ Forward: 8 });
    expect(report.notJudged.local).toBe(8);
    expect(report.plan.services).toEqual([
      { realm: 'cloud', address: '10.0.2.5', ports: ['tcp/80'] },
      { realm: 'site', address: '10.0.1.5', ports: ['tcp/80'] },
    ]);
  });

  test('a desired state: its exposures, clients and sources decide', async () => {
    const registry = await Registry.open(new MemoryStore());
    await registry.apply(
      {
        sites: [
          { name: 'cloud', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'c.test' },
          { name: 'site-a', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'a.test' },
        ],
        services: [
          { name: 'rabbitmq', site: 'cloud', address: SERVICE, ports: ['tcp/5672'] },
          { name: 'keystone', site: 'cloud', address: SERVICE, ports: ['tcp/5000'] },
          { name: 'glance', site: 'cloud', address: '10.0.0.6', ports: ['tcp/60000'] },
        ],
        exposures: [
          { service: 'rabbitmq', site: 'site-a' },
          { service: 'glance', site: 'site-a', clients: ['10.0.0.9/32'] },
        ],
      },
      'file'
    );
    const plan: PlanSource = { kind: 'desired', desired: registry, site: 'site-a' };
    const glance = '10.0.0.6';
    const report = await replay(
      [
        ...connection(5672),
        // In the middle of a connection, whose service has the higher port.
        tcpTo(60_000, ACK, forth(CLIENT, glance), 100),
        tcpTo(60_000, SYN, forth('10.0.0.10', glance), 100),
        tcpTo(5000, SYN),
        tcpTo(5672, SYN, forth('192.0.2.1')),
        tcpTo(5672, SYN, forth(CLIENT, '10.0.0.7')),
      ],
      plan
    );
    expect(report.verdicts).toEqual({
      Forward: 5,
      DropNotPermitted: 2,
      DropSpoofed: 1,
      DropNoPresence: 1,
    });
    expect(report.refusals.map(({ remedy }) => remedy)).toEqual([
      'if it should pass, expose tcp/60000 of 10.0.0.6 to the site',
      'if it should pass, expose tcp/5000 of 10.0.0.5 to the site',
      'if such hosts belong to the site, add their prefix to its sources',
      'if it should pass, expose tcp/5672 of 10.0.0.7 to the site',
    ]);
    const nowhere: PlanSource = { ...plan, site: 'site-b' };
    await expect(replay(connection(80), nowhere)).rejects.toThrow(
      'the desired state has no site "site-b": it has cloud, site-a'
    );
    await expect(replay(connection(80), { ...plan, site: 'cloud' })).rejects.toThrow(
      'exposes nothing to the site "cloud"'
    );
    await registry.close();
  });
});

describe('the built-in mix', () => {
  test('passes completely, and is measured', async () => {
    const { timing, machine } = await measureMix({ effort: EFFORT });
    expect(machine.node).toBe(process.version);
    expect(timing.leftOut).toBe(0);
    expect(timing.classes.map(({ name }) => name)).toEqual([
      'up to 128 bytes',
      '513 to 1024 bytes',
      '1025 to 1518 bytes',
    ]);
    expect(timing.all!.packets).toBe(12_300);
    expect(timing.all!.nsPerPacket).toBeGreaterThan(0);
  });

  test('is the same each time', () => {
    expect(Buffer.compare(builtInMix(), builtInMix())).toBe(0);
  });
});

test('the lines of a report name what a user has to know', async () => {
  const big = { bytes: tcpTo(80, ACK), captured: 40 };
  const report = await replay([...connection(80), tcpTo(81, SYN), big]);
  const here = await measureMix({ effort: EFFORT });
  const text = reportLines({ replay: report, here, reference: here }).join('\n');
  for (const part of [
    'capture: pcap, 6 packets, 240 bytes, 0.0 s',
    '  10.0.0.5 in "cloud": tcp/80',
    '83.33 %  Forward',
    '1 x DropNotPermitted: packet 5 (tcp from 10.0.0.9:40000 to 10.0.0.5:81)',
    'remedy: the capture shows no answer of tcp/81 of 10.0.0.5',
    'ns a packet',
    `here: ${here.machine.cpu}, Node ${process.version}`,
  ]) {
    expect(text).toContain(part);
  }
});

/** `npm run fuzz:capture` replays 1,000,000. */
const PACKETS = Number(process.env.VP_CAPTURES ?? 4000);

test(`${PACKETS} damaged packets have a verdict or are counted`, async () => {
  const random = new Random(Number(process.env.VP_SEED ?? 1));
  const six = forth('fd00::9', 'fd00::5');
  const quoted = udpPacket(forth(), { sourcePort: 4000, destinationPort: 53 });
  const healthy = [
    ...connection(80),
    ...connection(443, six),
    quoted,
    echoPacket(six, {}),
    icmpError(back(forth()), { type: 3, code: 3, quoted }),
    icmpError(back(six), { type: 1, code: 4, quoted: tcpTo(443, SYN, six) }),
    fragment(six, udp({ sourcePort: 1, destinationPort: 2, payload: new Uint8Array(64) }), [0, 32]),
    sctpPacket(forth(), {
      sourcePort: 9,
      destinationPort: 3868,
      payload: Uint8Array.of(1, 0, 0, 4),
    }),
  ];
  for (const linkType of [0, 1, 101, 113, 276]) {
    const packets = Array.from({ length: PACKETS / 5 }, (): Written => {
      const header = new Uint8Array({ 0: 4, 1: 14, 113: 16, 276: 20 }[linkType] ?? 0);
      if (linkType === 0) header[0] = 2;
      const packet = random.pick(healthy);
      const [type, at] = [
        packet[0]! >> 4 === 4 ? [8, 0] : [0x86, 0xdd],
        linkType === 276 ? 0 : header.length - 2,
      ];
      if (header.length > 4) header.set(type, at);
      const bytes = new Uint8Array([...header, ...packet]);
      for (let n = random.below(4); n > 0; n--)
        bytes[random.below(bytes.length)] = random.below(256);
      if (random.chance(0.5)) repairIpv4Checksum(bytes.subarray(header.length));
      const captured = random.chance(0.2) ? random.below(bytes.length + 1) : bytes.length;
      return { bytes, captured, timeMs: random.below(2 ** 31) };
    });
    const { capture, judged, verdicts, notJudged } = await replay(packets, undefined, linkType);
    const others = Object.values(capture.otherFrames).reduce((sum, count) => sum + count, 0);
    const { cut, local, beyond } = notJudged;
    expect(capture.ipPackets + others).toBe(packets.length);
    expect(judged + cut + local + beyond).toBe(capture.ipPackets);
    expect(Object.values(verdicts).reduce((sum, count) => sum + count, 0)).toBe(judged);
    expect(verdicts.Forward).toBeGreaterThan(packets.length / 5);
    expect(Object.keys(verdicts).length).toBeGreaterThan(3);
  }
}, 60_000);
