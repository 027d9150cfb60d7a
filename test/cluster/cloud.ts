/**
 * Several machines on one store in memory, with one clock that the test advances.
 * @module
 */
import {
  ClusterAllocation,
  Confirmations,
  Election,
  Horizon,
  Member,
  type MemberOptions,
  SiteClaims,
  type TunnelLiveness,
} from '../../src/cluster/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FaultyStore } from './faulty-store.ts';

export const TTL_MS = 2000;
export const DNS_TTL_MS = 5000;
export const MAX_DETACHED_MS = 20_000;

/** One machine with all parts of `src/cluster`. */
export interface Machine {
  readonly name: string;
  readonly store: FaultyStore;
  readonly member: Member;
  readonly election: Election;
  readonly horizon: Horizon;
  readonly allocation: ClusterAllocation;
  readonly claims: SiteClaims;
  readonly confirmations: Confirmations;
  /** The sites that have a live tunnel here. */
  readonly tunnels: Set<string>;
  /** The events of `claims`: `held site-a 12`, `lost site-a m2.example.org`. */
  readonly events: string[];
}

export class Cloud {
  readonly clock: FakeClock = new FakeClock();
  readonly #root: MemoryStore = new MemoryStore({ clock: this.clock });

  /** Starts a machine; its store is another handle, as another process has one. */
  async start(name: string, options: Partial<MemberOptions> = {}): Promise<Machine> {
    const { clock } = this;
    const store = new FaultyStore(this.#root.handle());
    const joining = Member.join({
      store,
      machine: name,
      endpoints: [{ host: `${name}.example.org`, port: 7443 }],
      ttlMs: TTL_MS,
      maxDetachedMs: MAX_DETACHED_MS,
      clock,
      ...options,
    });
    // It may wait for the end of the lease of the process before.
    let isOver = false;
    void joining
      .catch(() => {})
      .finally(() => {
        isOver = true;
      });
    while (!isOver) await this.pass(100);
    const member = await joining;
    const tunnels = new Set<string>();
    const liveness: TunnelLiveness = { isAlive: (site) => Promise.resolve(tunnels.has(site)) };
    const election = await Election.open(member);
    const horizon = await Horizon.open(member, DNS_TTL_MS);
    const claims = await SiteClaims.open({ member, liveness });
    const events: string[] = [];
    claims.on('held', ({ site, epoch }) => events.push(`held ${site} ${epoch.number}`));
    claims.on('lost', ({ site, endpoints }) => {
      events.push(`lost ${site} ${endpoints.map(({ host }) => host).join()}`);
      tunnels.delete(site);
    });
    const confirmations = await Confirmations.open(member);
    const allocation = new ClusterAllocation(member, election, horizon);
    await this.settle();
    return {
      name,
      store,
      member,
      election,
      horizon,
      allocation,
      claims,
      confirmations,
      tunnels,
      events,
    };
  }

  /** Another handle on the store, to look and to write as nobody of the cloud. */
  handle(): MemoryStore {
    return this.#root.handle();
  }

  /** The process of a machine is killed: nothing of it runs any more, and its lease is not renewed. */
  async kill({ store }: Machine): Promise<void> {
    await store.close();
    await this.settle();
  }

  /** Lets all work end that needs no time. */
  async settle(): Promise<void> {
    for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve));
  }

  /** Lets time pass in steps, and all work between them. */
  async pass(ms: number): Promise<void> {
    for (let leftMs = ms; leftMs > 0; leftMs -= STEP_MS) {
      this.clock.advance(Math.min(leftMs, STEP_MS));
      await this.settle();
    }
  }
}

const STEP_MS = 250;
