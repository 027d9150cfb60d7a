/**
 * `CloudMachines`: what an operator sees of the machines of a cloud and does with them. Each act is in the audit log. A
 * gateway without the option `cluster` has none.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { HostPort } from '../base/host-port.ts';
import { NameText, parseSchema } from '../base/schema.ts';
import type { DrainReport, MemberState } from '../cluster/index.ts';
import { ConfigError, ConflictError } from '../errors.ts';
import type { Logger } from '../observe/index.ts';
import type { CloudCluster } from './cloud-cluster.ts';
import type { CloudParts } from './cloud-parts.ts';
import { edgeSiteOf } from './cloud-requests.ts';

/** The machine of a gateway, as it sees itself. */
export interface OwnMachine {
  readonly name: string;
  /**
   * `detached`: it does not reach the store, so its tunnels go on, it takes no sites, and what it knows of the other
   * machines may be old. `removed`: it was removed from the cloud, and has ended its tunnels.
   */
  readonly state: MemberState;
  /** Whether it takes no sites any more. */
  readonly isDraining: boolean;
  /** Whether it allocates addresses for all machines. */
  readonly isController: boolean;
  /** Since when it is not attached; undefined while it is. */
  readonly detachedSince: Date | undefined;
  /** When it ends all its tunnels unless it is attached before; undefined if it does not. */
  readonly stopsAt: Date | undefined;
}

/** A machine of the cloud, as this one sees it. */
export interface CloudMachine {
  readonly name: string;
  /** Whether its lease of the store is alive. */
  readonly isLive: boolean;
  /** Whether it takes no sites any more. */
  readonly isDraining: boolean;
  /** Where edges reach it; empty if it is not alive. */
  readonly endpoints: readonly HostPort[];
  /** How many sites it holds. */
  readonly sites: number;
  /** Whether it allocates addresses for all machines. */
  readonly isController: boolean;
  /** When it has ended all its tunnels, because it is not alive; undefined if it is, or may go on for ever. */
  readonly stopsAt: Date | undefined;
}

/** The machines of a cloud, in the order of their names. */
export interface CloudMachineList {
  /** The machine of this gateway. */
  readonly machine: OwnMachine;
  readonly machines: readonly CloudMachine[];
}

/** Where a site is moved to: the number of a worker of this gateway, from 0, or the name of another machine. */
export type MoveDestination = number | { readonly machine: string };

/** `CloudGateway` documents the methods. */
export class CloudMachines {
  readonly #parts: CloudParts;
  readonly #clock: Clock;
  readonly #logger: Logger;

  constructor(parts: CloudParts, { clock, logger }: { clock: Clock; logger: Logger }) {
    this.#parts = parts;
    this.#clock = clock;
    this.#logger = logger;
  }

  list(): CloudMachineList {
    const cluster = this.#cluster;
    return {
      machine: ownMachineOf(cluster, this.#clock),
      machines: cluster.machines.map(({ stopsAtMs, ...machine }) => ({
        ...machine,
        stopsAt: timeOf(stopsAtMs, this.#clock),
      })),
    };
  }

  async drain(): Promise<DrainReport> {
    const cluster = this.#cluster;
    const { name: machine } = cluster.member;
    this.#parts.audit?.machine('drain', machine);
    this.#logDrain(machine, 'hands its sites over and takes none');
    const report = await cluster.drain();
    const { handedOver, kept } = report;
    this.#logDrain(machine, `has handed ${handedOver} sites over, and keeps ${kept.length}`);
    return report;
  }

  async resume(): Promise<void> {
    const cluster = this.#cluster;
    await cluster.resume();
    const { name: machine } = cluster.member;
    this.#parts.audit?.machine('resume', machine);
    this.#logDrain(machine, 'takes sites again');
  }

  async remove(machine: string): Promise<void> {
    const name = parseSchema(NameText, machine, 'machine');
    await this.#cluster.remove(name);
    this.#parts.audit?.machine('remove', name);
  }

  async move(site: string, to: MoveDestination): Promise<void> {
    const { registry, workers, audit } = this.#parts;
    const name = edgeSiteOf(registry, site);
    if (typeof to !== 'object') {
      await workers.move(name, to);
      return;
    }
    const machine = parseSchema(NameText, to?.machine, 'machine');
    const cluster = this.#cluster;
    const known = cluster.member.machines.get(machine);
    if (known === undefined) throw new ConfigError('machine', `"${machine}" is not a machine`);
    const holder = cluster.holderOf(name);
    if (holder === undefined) {
      throw new ConflictError(`no machine holds "${name}", because its edge is not connected`);
    }
    if (holder.machine === machine) return;
    if (!holder.isHere) {
      const text = `machine "${holder.machine}" holds "${name}"; move it at the gateway of that machine`;
      throw new ConflictError(text);
    }
    await cluster.move(name, machine);
    audit?.machine('move', machine, name);
  }

  #logDrain(machine: string, text: string): void {
    this.#logger.info({ event: 'machine_draining', machine }, `${machine} ${text}`);
  }

  /** @throws {ConflictError} if this gateway is the only one of its cloud. */
  get #cluster(): CloudCluster {
    const { cluster } = this.#parts;
    if (cluster !== undefined) return cluster;
    throw new ConflictError('this gateway is the only one of its cloud; it has no key "cluster"');
  }
}

/** Returns what a machine says of itself. */
export function ownMachineOf(cluster: CloudCluster, clock: Clock): OwnMachine {
  const { member, isController } = cluster;
  const { name, state, isDraining, detached } = member;
  return {
    name,
    state,
    isDraining,
    isController,
    detachedSince: detached && timeOf(detached.sinceMs, clock),
    stopsAt: detached && timeOf(detached.stopsAtMs, clock),
  };
}

/** Returns the time of day of a time of the monotonic clock; undefined for one that never comes. */
function timeOf(monotonicMs: number, clock: Clock): Date | undefined {
  if (!Number.isFinite(monotonicMs)) return undefined;
  return new Date(clock.wallMs() + monotonicMs - clock.monotonicMs());
}
