/**
 * A cloud in which everything changes at random, for the test that a derivation by keys has the results of one of
 * everything. There are hosts of both IP versions, services that share a host, small pools, and perhaps a transit realm.
 * Exposures name sites or take them by labels, some have further names, own addresses or time boxes. Packets flow.
 */
import fc from 'fast-check';
import type { PoolStatus } from '../../src/control/index.ts';
import type {
  ExposureInput,
  SelectorExposureInput,
  ServiceInput,
  SiteInput,
} from '../../src/registry/index.ts';
import type { TextOf } from '../support/text-of.ts';
import { ComparedTranslator, type Probe } from './compared-translator.ts';
import { type Desired, type Scene, type SceneOptions, startScene, turn } from './scene.ts';

export const SITES: readonly string[] = ['cloud', 'site-a', 'site-b', 'site-c'];
const SOURCES = [['10.0.0.0/24', '2001:db8::/64'], ['10.0.0.0/29'], ['2001:db8::/64']];
const POOLS = [
  ['10.0.0.128/25'],
  ['10.0.0.128/30'],
  ['10.0.0.192/29', '10.0.0.130/32'],
  ['10.0.0.128/28', 'fd00::/124'],
  ['fd00::/126', '10.0.0.128/30'],
  ['fd00::/125'],
];
const CLIENTS = [undefined, ['10.0.0.0/29', '2001:db8::/64'], ['10.0.0.5']];
/** The time of day at which `SceneClock` begins. */
const START_MS = 1_700_000_000_000;
const HOSTS = ['10.0.0.5', '10.0.0.6', '10.0.0.7', '2001:db8::5', '2001:db8::6'];
const ADDRESSES = ['10.0.0.130', '10.0.0.193', 'fd00::2'];

type Site = TextOf<SiteInput>;
type Service = TextOf<ServiceInput>;

export type Step =
  | { readonly do: 'site'; readonly site: Site }
  | { readonly do: 'removeSite'; readonly name: string }
  | { readonly do: 'service'; readonly service: Service }
  | { readonly do: 'removeService'; readonly name: string }
  | { readonly do: 'expose'; readonly exposure: TextOf<ExposureInput> }
  | { readonly do: 'select'; readonly exposure: TextOf<SelectorExposureInput> }
  | { readonly do: 'unexpose'; readonly service: string; readonly site: string }
  | { readonly do: 'unselect'; readonly name: string }
  | {
      readonly do: 'admit';
      readonly from: string;
      readonly host: string;
      readonly to: string;
      readonly family: 4 | 6;
    }
  | { readonly do: 'suspend'; readonly site: string; readonly is: boolean }
  | { readonly do: 'releaseClients'; readonly site: string }
  | { readonly do: 'send'; readonly probe: Probe }
  | { readonly do: 'store'; readonly isFailing: boolean }
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'turn' }
  | { readonly do: 'restart' };

const siteName = fc.constantFrom(...SITES);
const serviceName = fc.constantFrom('web', 'queue', 'shell', 'video', 'time');
const site: fc.Arbitrary<Site> = fc.record({
  name: siteName,
  sources: fc.constantFrom(...SOURCES),
  pools: fc.constantFrom(...POOLS),
  zone: fc.constantFrom('one.test', 'two.test'),
  maxClients: fc.constantFrom(2, 100),
  mtu: fc.constantFrom(1280, 1500),
  labels: fc.constantFrom({}, { tier: 'edge' }, { tier: 'edge', country: 'de' }, { tier: 'lab' }),
  ...{ serviceReserve: fc.constantFrom(undefined, 0, 2) },
});
const service: fc.Arbitrary<Service> = fc.record({
  name: serviceName,
  site: siteName,
  address: fc.constantFrom(...HOSTS),
  ports: fc.constantFrom(['tcp/80'], ['udp/53', 'tcp/53']),
});
const rarely = <T>(...values: readonly T[]): fc.Arbitrary<T | undefined> =>
  fc.oneof(
    { weight: 5, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.constantFrom(...values) }
  );
/** Some are over before the first step, some begin while the steps are taken. */
const time = [-60, 20, 60, 120, 300].map((s) => new Date(START_MS + 1000 * s).toISOString());
const terms = {
  service: serviceName,
  clients: fc.constantFrom(...CLIENTS),
  address: rarely(...ADDRESSES),
  dnsName: rarely('www', 'deep.mq'),
  aliases: rarely(['old'], ['one', 'two']),
  wildcard: rarely(true),
  https: rarely([{}]),
  notBefore: rarely(...time),
  notAfter: rarely(...time),
};
const exposure: fc.Arbitrary<TextOf<ExposureInput>> = fc.record({ ...terms, site: siteName });
const selectorName = fc.constantFrom('one', 'two');
const selector: fc.Arbitrary<TextOf<SelectorExposureInput>> = fc.record({
  ...terms,
  name: selectorName,
  siteSelector: fc.constantFrom({}, { tier: 'edge' }, { tier: 'edge', country: 'de' }),
});

const weighted = <T extends Step['do'], R extends object>(
  weight: number,
  name: T,
  rest: { [K in keyof R]: fc.Arbitrary<R[K]> }
) => ({ weight, arbitrary: fc.record({ do: fc.constant(name), ...rest }) });

export const step: fc.Arbitrary<Step> = fc.oneof(
  weighted(5, 'site', { site }),
  weighted(1, 'removeSite', { name: siteName }),
  weighted(4, 'service', { service }),
  weighted(1, 'removeService', { name: serviceName }),
  weighted(8, 'expose', { exposure }),
  weighted(2, 'select', { exposure: selector }),
  weighted(4, 'unexpose', { service: serviceName, site: siteName }),
  weighted(1, 'unselect', { name: selectorName }),
  weighted(8, 'admit', {
    from: fc.constantFrom('site-a', 'site-a', 'site-b', 'site-b', ...SITES),
    host: fc.constantFrom('10.0.0.5', '10.0.0.6', '10.0.0.7', ...HOSTS),
    to: fc.constantFrom('cloud', 'cloud', 'site-a', ...SITES),
    family: fc.constantFrom<4 | 6>(4, 4, 4, 6),
  }),
  weighted(6, 'send', {
    probe: fc.record({ host: fc.constantFrom(...HOSTS), at: fc.nat({ max: 1000 }) }),
  }),
  weighted(2, 'suspend', { site: siteName, is: fc.boolean() }),
  weighted(1, 'releaseClients', { site: siteName }),
  weighted(2, 'store', { isFailing: fc.boolean() }),
  weighted(2, 'wait', { ms: fc.constantFrom(5_000, 30_000, 60_000) }),
  weighted(4, 'turn', {}),
  weighted(1, 'restart', {})
) as fc.Arbitrary<Step>;

/** Most clients use IPv4, and go where something is exposed at the beginning. */
export const FIRST_STEPS: readonly Step[] = [
  ...['10.0.0.5', '10.0.0.6', '10.0.0.7'].flatMap((host): Step[] => [
    { do: 'admit', from: 'site-a', host, to: 'cloud', family: 4 },
    { do: 'admit', from: 'site-b', host, to: 'site-a', family: 4 },
  ]),
  { do: 'turn' },
];

/** What there is at the beginning. */
export const FIRST: Desired = {
  sites: SITES.map((name, i) => ({
    name,
    sources: SOURCES[0]!,
    pools: POOLS[[0, 3, 4, 0][i]!]!,
    zone: `${name}.test`,
    maxClients: 3,
  })),
  services: [
    { name: 'web', site: 'cloud', address: '10.0.0.5', ports: ['tcp/80'] },
    { name: 'queue', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672'] },
    { name: 'shell', site: 'site-a', address: '10.0.0.6', ports: ['tcp/22'] },
    { name: 'video', site: 'site-b', address: '2001:db8::5', ports: ['udp/5004'] },
  ],
  exposures: [
    { service: 'web', site: 'site-a' },
    { service: 'queue', site: 'site-a' },
    { service: 'shell', site: 'site-b' },
    { service: 'video', site: 'cloud' },
  ],
};

/** What a controller has derived. */
export interface Derived {
  readonly presences: unknown;
  readonly plan: unknown;
  /** The plan divided among two translators, and the routes to them. */
  readonly parts: unknown;
  readonly routes: unknown;
  /** What the translator says of packets from some hosts to all presences. */
  readonly explanations: readonly string[];
  readonly snapshots: readonly unknown[];
  readonly pools: readonly (PoolStatus | undefined)[];
}

export class DerivationWorld {
  scene!: Scene;
  translator!: ComparedTranslator;
  readonly suspended: Set<string> = new Set();
  /** How many packets have passed, without the answers. */
  forwarded = 0;
  readonly #options: SceneOptions;

  constructor(options: SceneOptions) {
    this.#options = {
      ...options,
      auditMs: 1000,
      translatorOf: (store) => {
        this.translator = new ComparedTranslator(store, () => this.forwarded++);
        return this.translator;
      },
    };
  }

  async start(desired: Desired | null = FIRST): Promise<void> {
    const from = this.scene as Scene | undefined;
    const options = { ...this.#options, suspended: this.suspended };
    this.scene = await startScene(desired, options, from);
  }

  async take(step: Step): Promise<void> {
    const { registry, controller, store, clock } = this.scene;
    // What is refused changes nothing.
    const ignore = () => {};
    switch (step.do) {
      case 'site':
        return void (await registry.putSite(step.site, 'file').catch(ignore));
      case 'removeSite':
        return void (await registry.removeSite(step.name, 'file').catch(ignore));
      case 'service':
        return void (await registry.putService(step.service, 'file').catch(ignore));
      case 'removeService':
        return void (await registry.removeService(step.name, 'file').catch(ignore));
      case 'expose':
        return void (await registry.expose(step.exposure, 'file').catch(ignore));
      case 'select':
        return void (await registry.expose(step.exposure, 'file').catch(ignore));
      case 'unexpose':
        return void (await registry.unexpose(step, 'file').catch(ignore));
      case 'unselect':
        return void (await registry.unexpose({ name: step.name }, 'file').catch(ignore));
      case 'admit':
        controller.admit(step.from, step.host, step.to, step.family).catch(ignore);
        return;
      case 'send': {
        const lacking = this.translator.send(step.probe, clock.monotonicMs());
        if (lacking === undefined) return;
        const { site, host, realm, family } = lacking;
        await controller.admit(site, host, realm, family).catch(ignore);
        return void this.translator.send(step.probe, clock.monotonicMs());
      }
      case 'suspend':
        if (step.is) this.suspended.add(step.site);
        else this.suspended.delete(step.site);
        controller.suspend(step.site, step.is);
        return;
      case 'releaseClients':
        controller.releaseClients(step.site).catch(ignore);
        return;
      case 'store':
        store.isFailing = step.isFailing;
        return;
      case 'wait':
        clock.advance(step.ms);
        return;
      case 'turn':
        return turn();
      case 'restart': {
        await turn();
        const wasFailing = store.isFailing;
        store.isFailing = false;
        await this.start(null);
        store.isFailing = wasFailing;
      }
    }
  }

  /** Lets everything that is under way end, and what has failed be tried again. */
  async settle(): Promise<void> {
    const { store, clock } = this.scene;
    store.isFailing = false;
    await turn();
    await clock.pass(10_000);
  }

  derived(): Derived {
    const { controller } = this.scene;
    const { translator } = this;
    const inOrder = (all: readonly object[]) => all.map((each) => JSON.stringify(each)).sort();
    const { realms, presences, permits } = translator.plan;
    return {
      presences: inOrder(controller.presences()),
      plan: [realms, presences, permits].map(inOrder),
      parts: translator.parts.map((part) => part.text),
      routes: [...translator.routes].sort(),
      explanations: translator.explanations(),
      snapshots: SITES.map((name) => {
        const { revision: _, ...view } = controller.snapshot(name) ?? { revision: 0 };
        return JSON.stringify(view);
      }),
      pools: SITES.map((name) => controller.poolStats(name)),
    };
  }
}
