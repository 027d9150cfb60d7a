/**
 * Random clouds, their sites held by one translator or spread over several: the same packets pass, and
 * with the same addresses; so do the answers to them.
 */
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { ACK, echoPacket, SYN, tcpPacket, udpPacket } from '../support/packets.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { type Arrival, CLOUD, destinationOf, PartitionWorld, sourceOf } from './partition-world.ts';
import { turn } from './scene.ts';

const RUNS = runsOf(60);

const SITES = ['site-a', 'site-b', 'site-c'];
const REALMS = [CLOUD, ...SITES];
const HOSTS = { 4: ['10.0.0.5', '10.0.0.6'], 6: ['2001:db8::5', '2001:db8::6'] };
const POOLS = [
  ['10.0.0.128/25'],
  ['10.0.0.128/25', '2001:db8::1:0/120'],
  ['2001:db8::1:0/120'],
  ['10.0.0.128/28', '2001:db8::1:0/120'],
];
const PORTS = ['tcp/80', 'udp/53', 'icmp'];

const family = fc.constantFrom<(4 | 6)[]>(4, 6);
const realmIndex = fc.nat({ max: REALMS.length - 1 });
const siteIndex = fc.nat({ max: SITES.length - 1 });

const cloud = fc.record({
  pools: fc.array(fc.nat({ max: POOLS.length - 1 }), { minLength: 4, maxLength: 4 }),
  holders: fc.array(fc.nat({ max: 2 }), { minLength: 3, maxLength: 3 }),
  /** The port at which a host is a service, and the realm to which it is exposed. */
  exposures: fc.uniqueArray(
    fc.record({
      home: realmIndex,
      host: fc.nat({ max: 1 }),
      family,
      ports: fc.subarray(PORTS, { minLength: 1 }),
      to: realmIndex,
      clients: fc.option(
        fc.constantFrom(
          ['10.0.0.5/32', '2001:db8::5/128'],
          ['10.0.0.4/30', '10.0.0.128/26', '2001:db8::/64']
        ),
        { nil: undefined }
      ),
    }),
    {
      minLength: 8,
      maxLength: 20,
      selector: ({ home, host, family: of, to }) => `${home} ${host} ${of} ${to}`,
    }
  ),
});

const traffic = fc.array(
  fc.oneof(
    {
      weight: 10,
      arbitrary: fc.record({
        from: realmIndex,
        host: fc.nat({ max: 2 }),
        /** The index of the presence, or of none. */
        to: fc.nat({ max: 1000 }),
        kind: fc.constantFrom('tcp', 'udp', 'echo', 'other port'),
        isWholeFirst: fc.boolean(),
      }),
    },
    { weight: 1, arbitrary: fc.record({ move: siteIndex, holder: fc.nat({ max: 2 }) }) }
  ),
  { minLength: 30, maxLength: 60 }
);

type Cloud = typeof cloud extends fc.Arbitrary<infer T> ? T : never;
type Probe = Extract<
  typeof traffic extends fc.Arbitrary<(infer T)[]> ? T : never,
  { readonly from: number }
>;

async function startWorld({ pools, holders, exposures }: Cloud): Promise<PartitionWorld> {
  const sites = REALMS.map((name, i) => ({
    name,
    sources: ['10.0.0.0/24', '2001:db8::/64'],
    pools: POOLS[pools[i]!]!,
    zone: 'example.test',
    maxClients: 3,
  }));
  const services = exposures.map(({ home, host, family: of, ports }, i) => ({
    name: `service-${i}`,
    site: REALMS[home]!,
    address: HOSTS[of][host]!,
    ports,
  }));
  const held = Object.fromEntries(SITES.map((name, i) => [name, holders[i]!]));
  const world = await PartitionWorld.start({ sites, services } as never, held, 3);
  for (const [i, { to, clients }] of exposures.entries()) {
    const exposure = { service: `service-${i}`, site: REALMS[to]!, ...(clients && { clients }) };
    // One at home there, or that a pool is missing for, is none.
    await world.registry.expose(exposure, 'admin').catch(() => {});
  }
  await turn();
  return world;
}

function request(kind: string, source: string, destination: string): Uint8Array {
  const ends = { source, destination };
  const ports = { sourcePort: 40_000, destinationPort: kind === 'other port' ? 81 : 80 };
  if (kind === 'echo') return echoPacket(ends, {});
  if (kind === 'udp') return udpPacket(ends, { sourcePort: 40_000, destinationPort: 53 });
  return tcpPacket(ends, { ...ports, flags: SYN });
}

function answer(kind: string, packet: Uint8Array): Uint8Array {
  const ends = {
    source: destinationOf(packet).toString(),
    destination: sourceOf(packet).toString(),
  };
  if (kind === 'echo') return echoPacket(ends, { reply: true });
  if (kind === 'udp') return udpPacket(ends, { sourcePort: 53, destinationPort: 40_000 });
  return tcpPacket(ends, { sourcePort: 80, destinationPort: 40_000, flags: SYN | ACK });
}

/** What must be the same: where it is, and from whom to whom. */
function outcome(arrival: Arrival): object {
  if ('refused' in arrival) return { refused: true };
  const { realm, packet } = arrival;
  return {
    realm,
    source: sourceOf(packet).toString(),
    destination: destinationOf(packet).toString(),
    length: packet.length,
  };
}

async function compare(
  world: PartitionWorld,
  realm: string,
  packet: Uint8Array,
  isWholeFirst: boolean
): Promise<Arrival> {
  const runs = [
    () => world.throughWhole(realm, packet),
    () => world.throughParts(realm, packet),
  ] as const;
  const first = await runs[isWholeFirst ? 0 : 1]();
  const second = await runs[isWholeFirst ? 1 : 0]();
  const [whole, parts] = isWholeFirst ? [first, second] : [second, first];
  const what = `${realm}: ${sourceOf(packet)} -> ${destinationOf(packet)} ${JSON.stringify([whole, parts])}`;
  expect(outcome(parts), what).toEqual(outcome(whole));
  return whole;
}

async function probe(
  world: PartitionWorld,
  { from, host, to, kind, isWholeFirst }: Probe
): Promise<void> {
  const realm = REALMS[from]!;
  const known = [...world.presences.values()].filter((each) => each.realm === realm);
  const unused = to % 2 === 0 ? '10.0.0.200' : '2001:db8::1:70';
  const destination = known[to % (known.length + 1)]?.address ?? unused;
  const of = destination.includes(':') ? 6 : 4;
  // The third is a presence, if there is one, and so nobody who may send.
  const source =
    HOSTS[of][host] ?? known.find(({ address }) => address !== destination)?.address ?? '';
  if (source === '' || source.includes(':') !== (of === 6)) return;
  const there = await compare(world, realm, request(kind, source, destination), isWholeFirst);
  if ('refused' in there) return;
  const back = answer(kind, there.packet);
  const returned = await compare(world, there.realm, back, isWholeFirst);
  expect(outcome(returned)).toMatchObject({ realm, source: destination, destination: source });
}

test(
  'several translators pass exactly the packets that one translator passes',
  async () => {
    let crossed = 0;
    await fc.assert(
      fc.asyncProperty(cloud, traffic, async (shape, steps) => {
        const world = await startWorld(shape);
        try {
          for (const step of steps) {
            if ('move' in step) world.move(SITES[step.move]!, step.holder);
            else await probe(world, step);
          }
          crossed += world.crossed;
        } finally {
          await world.close();
        }
      }),
      RUNS
    );
    // With fewer the property would not have been tested.
    expect(crossed).toBeGreaterThan(RUNS.numRuns / 2);
  },
  timeoutOf(RUNS)
);
