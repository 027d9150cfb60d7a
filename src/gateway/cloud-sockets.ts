/**
 * What a cloud gateway tells the stack of sockets that it has instead of a device.
 *
 * Snapshots of the cloud's site come a moment after a change. The plan of the translator comes at once, and no packet of
 * a new lease passes before it is loaded. So it is the plan that ends what belongs to a presence that another host may
 * have next.
 * @module
 */
import type { PlanTarget } from '../control/index.ts';
import type { PacketDevice } from '../device/index.ts';
import { CLOUD } from '../registry/index.ts';
import type { Presence, TranslationPlan } from '../translator/index.ts';
import type { EdgeChange } from './edge-tunnels.ts';
import { GatewaySockets } from './gateway-sockets.ts';

/** A device that is not a stack is told nothing. */
export class CloudSockets extends GatewaySockets {
  /** The presences in the cloud, by the text of the address. */
  #presences = new Map<string, Presence>();

  /** How many tunnels each site has; two while a newer one replaces another. */
  readonly #tunnels = new Map<string, number>();

  constructor(device: PacketDevice | undefined) {
    super(device);
    this.#tellReach();
  }

  /** The tunnel of a site came up or went down. Connections to its presences wait while it has none. */
  onEdge({ site, state }: EdgeChange): void {
    const count = (this.#tunnels.get(site) ?? 0) + (state === 'up' ? 1 : -1);
    if (count === 0) this.#tunnels.delete(site);
    else this.#tunnels.set(site, count);
    this.#tellReach();
  }

  /** Returns a target that shows each plan to the stack before `target` has it. */
  before(target: PlanTarget): PlanTarget {
    if (this.optionalStack === undefined) return target;
    return {
      load: (plan) => {
        this.#load(plan);
        target.load(plan);
      },
      bind: (presence) => {
        if (presence.realm === CLOUD) this.#presences.set(presence.address.toString(), presence);
        target.bind(presence);
      },
    };
  }

  #tellReach(): void {
    this.optionalStack?.setFailureTo((remote) => {
      const site = this.#presences.get(remote.toString())?.of.realm;
      const isDown = site !== undefined && !this.#tunnels.has(site);
      return isDown ? new Error(`the tunnel of ${site} is down`) : undefined;
    });
  }

  #load({ presences }: TranslationPlan): void {
    const now = presences.filter(({ realm }) => realm === CLOUD);
    const before = this.#presences;
    this.#presences = new Map(now.map((each) => [each.address.toString(), each]));
    const gone = [...before].filter(
      ([address, { of }]) => this.#presences.get(address)?.of.key !== of.key
    );
    if (gone.length > 0) this.#end(new Map(gone));
  }

  #end(gone: ReadonlyMap<string, Presence>): void {
    for (const connection of [...this.stack.tcp.connections()]) {
      const presence = gone.get(connection.flow.remote.toString());
      if (presence === undefined) continue;
      const { address, of } = presence;
      connection.abort(new Error(`${address} no longer stands for ${of.address} of ${of.realm}`));
    }
  }
}
