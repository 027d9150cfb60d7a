/**
 * A program that measures one size, and prints one line of JSON:
 *
 *     node --expose-gc measures.js PLACE SITES CLIENTS SECONDS
 *
 * `place.ts` says what a place is.
 * @module
 */
import { systemClock } from '../../src/base/clock.ts';
import { PresenceController, type Snapshot } from '../../src/control/index.ts';
import { DnsServer } from '../../src/dns/index.ts';
import { ConfigError } from '../../src/errors.ts';
import { CloudNames } from '../../src/gateway/cloud-names.ts';
import { CLOUD, Registry } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { PacketTranslator } from '../../src/translator/index.ts';
import { Random } from '../../test/support/random.ts';
import { rounded } from '../gateway/report.ts';
import { type Cost, costOf, repeat } from './cost.ts';
import { LoopWatch } from './loop-watch.ts';
import { followLeases, type Place, placeOf } from './place.ts';
import { desiredState, EXTRA, hostAddress, OWNER, PORT, SEED, siteName } from './scene.ts';
import { Stream } from './stream.ts';
import type { Passage } from './stream-source.ts';

/** What is measured of one size. */
export interface MeasuredFigures {
  readonly sites: number;
  readonly startMs: number;
  /** After the start, as it is, and after a collection of garbage. */
  readonly rssMiB: number;
  readonly collectedRssMiB: number;
  readonly heapMiB: number;
  /** From `expose` to the site's snapshot with the name. */
  readonly expose: Cost;
  /** The whole desired state is applied again. */
  readonly apply: Cost;
  readonly revoke: Cost;
  readonly client: Cost;
  readonly clients: number;
  /** The admission of all these clients, some hundreds in each commit. */
  readonly load: Cost;
  readonly clientOfMany: Cost;
  /** Null where the registry has no selectors. */
  readonly selector: Cost | null;
  /** The rival: the whole is derived again and loaded. */
  readonly full: Cost;
  /** The packets that passed meanwhile; none while the rival ran. */
  readonly stream: Passage;
}

class Bench implements AsyncDisposable {
  readonly #random = new Random(SEED);
  readonly #watch = new LoopWatch();
  readonly #sites: number;
  readonly #seconds: number;
  readonly #place: Place;
  readonly #registry: Registry;
  readonly #translator: PacketTranslator;
  readonly #controller: PresenceController;
  readonly #dns: DnsServer;
  /** Is called with each snapshot that has the extra service. */
  #onExtra: (snapshot: Snapshot) => void = () => {};
  #nextHost = 1;

  private constructor(
    sites: number,
    seconds: number,
    parts: readonly [Place, Registry, PacketTranslator, PresenceController, DnsServer]
  ) {
    this.#sites = sites;
    this.#seconds = seconds;
    [this.#place, this.#registry, this.#translator, this.#controller, this.#dns] = parts;
    this.#controller.on('problem', ({ error }) => {
      throw error;
    });
    this.#controller.on('snapshot', (snapshot) => {
      if (hasExtra(snapshot)) this.#onExtra(snapshot);
    });
  }

  static async start(open: () => Promise<Place>, sites: number, seconds: number): Promise<Bench> {
    const place = await open();
    const { store, allocation, member } = place;
    const registry = await Registry.open(store);
    const translator = new PacketTranslator();
    // As a cloud gateway does: the names of the cloud itself follow by keys.
    const names = new CloudNames({
      registry,
      ttlSeconds: 30,
      isTransit: false,
      clock: systemClock,
      onError: (error) => {
        throw error;
      },
    });
    const dns = await DnsServer.listen({ listen: { host: '127.0.0.1', port: 0 } });
    names.serve(dns);
    const controller = await PresenceController.start({
      registry,
      store,
      translator: names.after(translator),
      ownSite: CLOUD,
      allocation,
    });
    if (member !== undefined) followLeases(member, () => controller.settled());
    return new Bench(sites, seconds, [place, registry, translator, controller, dns]);
  }

  /** Opens a stream of packets from a host of the first site, which nothing here changes. */
  async openStream(): Promise<Stream> {
    await this.#controller.admit(siteName(0), hostAddress(0), 'cloud', 4);
    const { hosts } = this.#controller.snapshot(siteName(0))!;
    const to = `${hosts.find(({ name }) => name.startsWith('svc-0.'))!.addresses[0]}`;
    return Stream.open(this.#translator, siteName(0), { from: hostAddress(0), to, port: PORT });
  }

  /** Resolves when nothing is left to do. */
  async settle(): Promise<void> {
    await this.#controller.settled();
    await this.#watch.quiet();
  }

  expose(): Promise<Cost> {
    return this.#repeat(async (site) => {
      const published = this.#snapshotsWithExtra(1);
      const startMs = performance.now();
      await this.#registry.expose({ service: EXTRA, site }, OWNER);
      await published;
      const tookMs = performance.now() - startMs;
      await this.#registry.unexpose({ service: EXTRA, site }, OWNER);
      await this.settle();
      return tookMs;
    });
  }

  /** Applies the whole desired state again, which changes nothing. @param state a `DesiredInput` */
  apply(state: object): Promise<Cost> {
    return costOf(this.#watch, async () => {
      const startMs = performance.now();
      await this.#registry.apply(state, OWNER);
      return [performance.now() - startMs];
    });
  }

  revoke(): Promise<Cost> {
    return this.#repeat(async (site) => {
      const startMs = performance.now();
      this.#controller.suspend(site, true);
      const tookMs = performance.now() - startMs;
      if (this.#controller.snapshot(site) !== undefined)
        throw new Error(`${site} is not suspended`);
      this.#controller.suspend(site, false);
      await this.settle();
      return tookMs;
    });
  }

  client(): Promise<Cost> {
    return this.#repeat(async (site) => {
      const startMs = performance.now();
      await this.#controller.admit(site, hostAddress(this.#nextHost++), 'cloud', 4);
      return performance.now() - startMs;
    });
  }

  /** Admits clients of all sites in turn. */
  load(clients: number): Promise<Cost> {
    return costOf(this.#watch, async () => {
      const startMs = performance.now();
      for (let first = 0; first < clients; first += CLIENTS_AT_ONCE) {
        const count = Math.min(CLIENTS_AT_ONCE, clients - first);
        const admissions = Array.from({ length: count }, (_, i) => {
          const site = siteName((first + i) % this.#sites);
          return this.#controller.admit(site, hostAddress(this.#nextHost++), 'cloud', 4);
        });
        await Promise.all(admissions);
        // Packets come between two batches.
        await new Promise(setImmediate);
      }
      return [performance.now() - startMs];
    });
  }

  /** Exposes a service to all sites at once. Returns null if the registry has no selectors. */
  async selector(): Promise<Cost | null> {
    const exposure = { name: 'everywhere', siteSelector: {}, service: EXTRA };
    try {
      return await costOf(this.#watch, async () => {
        const published = this.#snapshotsWithExtra(this.#sites);
        const startMs = performance.now();
        await this.#registry.expose(exposure, OWNER);
        await published;
        return [performance.now() - startMs];
      });
    } catch (error) {
      if (error instanceof ConfigError) return null;
      throw error;
    }
  }

  /** Derives the whole in a new controller on the same state, and loads it into a new translator. */
  async full(): Promise<Cost> {
    const entries = await this.#place.store.list('lease');
    const memory = new MemoryStore();
    await memory.commit(entries.map(({ key, value }) => ({ key, value })));
    return costOf(this.#watch, async () => {
      const times: number[] = [];
      for (let i = 0; i < FULL_REPETITIONS; i++) {
        const startMs = performance.now();
        const controller = await PresenceController.start({
          registry: this.#registry,
          store: memory,
          translator: new PacketTranslator(),
        });
        times.push(performance.now() - startMs);
        await controller.close();
      }
      return times;
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#watch[Symbol.dispose]();
    await this.#controller.close();
    await this.#dns.close();
    await this.#registry.close();
    await this.#place.close();
  }

  /** Measures a change of one random site after the other. */
  #repeat(take: (site: string) => Promise<number>): Promise<Cost> {
    return repeat(this.#watch, this.#seconds, () =>
      take(siteName(this.#random.between(1, this.#sites - 1)))
    );
  }

  /** Resolves when so many sites have a snapshot with the extra service. */
  #snapshotsWithExtra(count: number): Promise<void> {
    return new Promise((resolve) => {
      const sites = new Set<string>();
      this.#onExtra = ({ site }) => {
        sites.add(site);
        if (sites.size === count) resolve();
      };
    });
  }
}

function hasExtra({ hosts }: Snapshot): boolean {
  return hosts.some(({ name }) => name.startsWith(`${EXTRA}.`));
}

async function main(): Promise<void> {
  const [place, sitesText, clientsText, seconds] = process.argv.slice(2);
  const [sites, clients] = [Number(sitesText), Number(clientsText)];
  const open = await placeOf(place!);
  const startedMs = performance.now();
  await using bench = await Bench.start(open, sites, Number(seconds));
  const startMs = rounded(performance.now() - startedMs);
  await bench.settle();
  const rssMiB = mib(process.memoryUsage().rss);
  globalThis.gc!();
  const { rss, heapUsed } = process.memoryUsage();

  // It is made before packets flow, because that holds up the event loop.
  const state = desiredState(sites, clients);
  const stream = await bench.openStream();
  stream.start();
  const expose = await bench.expose();
  const apply = await bench.apply(state);
  const revoke = await bench.revoke();
  await stream.stop();
  const full = await bench.full();
  stream.start();
  const client = await bench.client();
  const load = await bench.load(clients);
  const clientOfMany = await bench.client();
  const selector = await bench.selector();
  const passage = await stream.stop();
  await stream.close();
  const figures: MeasuredFigures = {
    ...{ sites, startMs, rssMiB, collectedRssMiB: mib(rss), heapMiB: mib(heapUsed) },
    ...{
      expose,
      apply,
      revoke,
      client,
      clients,
      load,
      clientOfMany,
      selector,
      full,
      stream: passage,
    },
  };
  console.log(JSON.stringify(figures));
}

function mib(bytes: number): number {
  return rounded(bytes / 2 ** 20);
}

const FULL_REPETITIONS = 3;
const CLIENTS_AT_ONCE = 256;

await main();
