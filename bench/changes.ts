/**
 * Measures what one change of a plan costs with few and with many realms: `PacketTranslator.apply`, beside `load` of the
 * whole plan. A figure that does not depend on the number of realms has the growth exponent 0.
 * @module
 */
import { PacketTranslator, type PlanChanges, Verdict } from '../src/translator/index.ts';
import { compileChanges, compilePlan } from '../src/translator/plan.ts';
import { tcpPacket } from '../test/support/packets.ts';

/** Medians; wall time, because one change takes microseconds. */
export interface ChangeCosts {
  readonly realms: number;
  readonly loadMs: number;
  /** Other ports for one service in one realm. */
  readonly permitUs: number;
  /** Another address for a client with open paths. */
  readonly presenceUs: number;
  /** The address of a new client. */
  readonly clientUs: number;
  /** A realm that goes, with its paths. */
  readonly goneUs: number;
}

export interface Changes {
  readonly costs: readonly ChangeCosts[];
  /** The exponent of the number of realms that fits best, for each figure by its name. */
  readonly exponents: Readonly<Record<string, number>>;
}

/** Prints the costs, and returns them. */
export function measureChanges(sizes: readonly number[]): Changes {
  const costs = sizes.map(measure);
  const exponents = Object.fromEntries(
    FIGURES.map((name) => [
      name,
      exponent(
        sizes,
        costs.map((each) => each[name])
      ),
    ])
  );
  console.log(`\n${['realms', ...FIGURES].map((name) => name.padStart(12)).join('')}`);
  for (const each of costs) console.log(row([each.realms, ...FIGURES.map((name) => each[name])]));
  console.log(`${'exponent'.padStart(12)}${row(FIGURES.map((name) => exponents[name]!))}`);
  return { costs, exponents };
}

/** A cloud with services, all of which all sites may use; each site has clients with open paths. */
function measure(count: number): ChangeCosts {
  const plan = compilePlan({
    realms: [
      { name: 'cloud', ...LAN },
      ...Array.from({ length: count }, (_, site) => ({ name: nameOf(site), ...LAN })),
    ],
    presences: Array.from({ length: count }, (_, site) => [
      ...each(SERVICES, (n) => ({ realm: nameOf(site), address: presenceOf(n), of: serviceOf(n) })),
      ...each(CLIENTS, (n) => ({
        realm: 'cloud',
        address: inCloud(CLIENTS * site + n),
        of: { realm: nameOf(site), address: clientOf(n) },
      })),
    ]).flat(),
    permits: Array.from({ length: count }, (_, site) =>
      each(SERVICES, (n) => ({
        realm: nameOf(site),
        service: serviceOf(n),
        ports: [`tcp/${80 + n}`],
      }))
    ).flat(),
  });
  const loads: number[] = [];
  let translator = new PacketTranslator();
  for (let n = 0; n < LOADS; n++) {
    translator = new PacketTranslator();
    loads.push(timed(() => translator.load(plan)));
  }
  for (let site = 0; site < count; site++) openPaths(translator, site);

  const spare = 2 * CLIENTS * count;
  const sites = Array.from({ length: ROUNDS }, (_, n) => Math.floor((n * count) / ROUNDS));
  const permitUs = sites.map((site, n) => {
    const [realm, service] = [nameOf(site), serviceOf(0)];
    const permits = [{ realm, service, ports: [`tcp/${1000 + n}`, 'tcp/80'] }];
    return apply(translator, compileChanges({ permits: [{ realm, service, permits }] }));
  });
  const presenceUs = sites.map((site, n) => {
    const of = { realm: nameOf(site), address: clientOf(0) };
    const before = { realm: 'cloud', address: addressOf(site, n), of: undefined };
    const after = { realm: 'cloud', address: inCloud(spare + n), of };
    const us = apply(translator, compileChanges({ presences: [before, after] }));
    openPaths(translator, site);
    return us;
  });
  const clientUs = sites.map((site, n) => {
    const of = { realm: nameOf(site), address: clientOf(CLIENTS + n) };
    const presence = { realm: 'cloud', address: inCloud(spare + ROUNDS + n), of };
    return apply(translator, compileChanges({ presences: [presence] }));
  });
  const goneUs = [...new Set(sites)].map((site) =>
    apply(translator, { realms: [{ name: nameOf(site), realm: undefined }] })
  );
  return {
    realms: count,
    loadMs: median(loads),
    permitUs: median(permitUs),
    presenceUs: median(presenceUs),
    clientUs: median(clientUs),
    goneUs: median(goneUs),
  };

  /** Returns the present address of a site's first client, which an earlier round may have changed. */
  function addressOf(site: number, round: number): string {
    const last = sites.lastIndexOf(site, round - 1);
    return round > 0 && last >= 0 ? inCloud(spare + last) : inCloud(CLIENTS * site);
  }
}

/** Sends a packet of each client of a site to each service, and the answer. */
function openPaths(translator: PacketTranslator, site: number): void {
  const realm = translator.realm(nameOf(site));
  for (let client = 0; client < CLIENTS; client++) {
    for (let service = 0; service < USED_SERVICES; service++) {
      const ends = { source: clientOf(client), destination: presenceOf(service) };
      const packet = tcpPacket(ends, { sourcePort: 40_000, destinationPort: 80 + service });
      const verdict = translator.translate(realm, packet, 0, packet.length);
      if (verdict !== Verdict.Forward) throw new Error(`the verdict is ${verdict}`);
    }
  }
}

function apply(translator: PacketTranslator, changes: PlanChanges): number {
  return 1e3 * timed(() => translator.apply(changes));
}

/** Returns the wall time in ms. */
function timed(work: () => void): number {
  const from = performance.now();
  work();
  return performance.now() - from;
}

function each<T>(count: number, make: (n: number) => T): T[] {
  return Array.from({ length: count }, (_, n) => make(n));
}

function nameOf(site: number): string {
  return `site-${site}`;
}

function serviceOf(n: number): { readonly realm: string; readonly address: string } {
  return { realm: 'cloud', address: `10.0.0.${1 + n}` };
}

function presenceOf(service: number): string {
  return `100.64.0.${1 + service}`;
}

function clientOf(n: number): string {
  return `10.0.${1 + (n >> 8)}.${n & 255}`;
}

function inCloud(n: number): string {
  return `100.${65 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
}

/** Fits value = a * size ^ exponent. */
function exponent(sizes: readonly number[], values: readonly number[]): number {
  const [x, y] = [sizes.map(Math.log), values.map(Math.log)];
  const mean = (list: readonly number[]): number => list.reduce((a, b) => a + b, 0) / list.length;
  const [mx, my] = [mean(x), mean(y)];
  const covariance = mean(x.map((each, i) => (each - mx) * (y[i]! - my)));
  return covariance / mean(x.map((each) => (each - mx) ** 2));
}

function row(values: readonly number[]): string {
  return values.map((value) => value.toLocaleString('en', DIGITS).padStart(12)).join('');
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

const FIGURES = ['loadMs', 'permitUs', 'presenceUs', 'clientUs', 'goneUs'] as const;
const LAN = { sources: ['10.0.0.0/16'], pools: ['100.64.0.0/10'] } as const;
const SERVICES = 20;
/** The services that have open paths. */
const USED_SERVICES = 2;
const CLIENTS = 4;
const LOADS = 3;
const ROUNDS = 400;
const DIGITS = { maximumFractionDigits: 2 } as const;
