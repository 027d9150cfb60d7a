/**
 * The pools of the cloud's own site at the machine: they are routed to the TUNs, and compared with what the machine uses
 * itself. What the pools lose is routed as long as presences have addresses there: until the overlap ends.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import type { PlanTarget } from '../control/index.ts';
import { isPacketDevice } from '../device/index.ts';
import { CLOUD, type Registry } from '../registry/index.ts';
import type { Realm } from '../translator/index.ts';
import type { WorkerPool } from '../worker/index.ts';
import type { ResolvedCloudOptions } from './cloud-options.ts';
import { HostCheck, type HostConflict } from './host-check.ts';

export class CloudPools {
  readonly #registry: Registry;
  readonly #workers: WorkerPool;
  readonly #hostCheck: HostCheck;
  /** Whether the pools are routed: not if the device is not a TUN, or has the option `routes`. */
  readonly #isRouted: boolean;
  /** The pools that the workers open their TUNs with, and later those that are routed. */
  #routed: readonly IpPrefix[];
  /** The prefixes of presences in the plan; undefined before the first one. */
  #planned: readonly IpPrefix[] | undefined;

  /** Must be called before the registry changes: the workers open their TUNs with the pools of now. */
  constructor(options: ResolvedCloudOptions, registry: Registry, workers: WorkerPool) {
    const { device } = options;
    this.#registry = registry;
    this.#workers = workers;
    this.#hostCheck = new HostCheck(options);
    this.#isRouted =
      !isPacketDevice(device) && device.type === 'tun' && device.routes === undefined;
    this.#routed = cloudPools(registry);
  }

  /** The conflicts of the pools with the machine. */
  get conflicts(): readonly HostConflict[] {
    return this.#hostCheck.conflicts;
  }

  /** Compares the pools with the machine, if they have changed. Must be called before the workers open. */
  check(): Promise<void> {
    return this.#hostCheck.check(cloudPools(this.#registry));
  }

  /** Returns a target that calls `onPools` when `target` has a plan with other prefixes of presences in the cloud. */
  after(target: PlanTarget, onPools: () => void): PlanTarget {
    const note = (realm: Pick<Realm, 'pools'> | undefined): void => {
      const pools = realm?.pools ?? [];
      const isSame = pools.join() === this.#planned?.join();
      this.#planned = pools;
      if (!isSame) onPools();
    };
    return {
      load: (plan) => {
        target.load(plan);
        note(plan.realms.find(({ name }) => name === CLOUD));
      },
      apply: (changes) => {
        target.apply(changes);
        for (const { name, realm } of changes.realms ?? []) if (name === CLOUD) note(realm);
      },
      ...(target.planned && { planned: (realm) => target.planned!(realm) }),
    };
  }

  /**
   * Compares the pools with the machine and routes them, if they have changed. Before the workers open, they open with
   * them.
   *
   * @throws {EnvironmentError} if the machine refuses the routes; the caller tries again.
   */
  async follow(): Promise<void> {
    await this.check();
    const pools = this.#planned ?? cloudPools(this.#registry);
    // Changes are frequent, and each call starts programs.
    if (!this.#isRouted || pools.join() === this.#routed.join()) return;
    await this.#workers.setRoutes(pools);
    this.#routed = pools;
  }
}

export function cloudPools(registry: Registry): readonly IpPrefix[] {
  return registry.site(CLOUD)?.pools ?? [];
}
