/**
 * The machines of a cloud, as they are on the wire.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';

/** The machine that was asked, as it sees itself. */
export interface OwnMachineAnswer {
  readonly name: string;
  /**
   * `detached`: it does not reach the store, so its tunnels go on, it takes no sites, and what it says of the other
   * machines may be old. `removed`: it was removed from the cloud, and has ended its tunnels.
   */
  readonly state: 'attached' | 'detached' | 'removed' | 'closed';
  /** Whether it takes no sites any more. */
  readonly isDraining: boolean;
  /** Whether it allocates addresses for all machines. */
  readonly isController: boolean;
  /** Since when it is not attached; absent while it is. */
  readonly detachedSince?: string | undefined;
  /** When it ends all its tunnels unless it is attached before; absent if it does not. */
  readonly stopsAt?: string | undefined;
}

/** A machine of the cloud, as the one that was asked sees it. */
export interface MachineAnswer {
  readonly name: string;
  /** Whether its lease of the store is alive. */
  readonly isLive: boolean;
  /** Whether it takes no sites any more. */
  readonly isDraining: boolean;
  /** Where edges reach it; empty if it is not alive. */
  readonly endpoints: readonly { readonly host: string; readonly port: number }[];
  /** How many sites it holds. */
  readonly sites: number;
  /** Whether it allocates addresses for all machines. */
  readonly isController: boolean;
  /** When it has ended all its tunnels, because it is not alive; absent if it is, or may go on without the store for ever. */
  readonly stopsAt?: string | undefined;
}

/** The machines of the cloud, in the order of their names. */
export interface MachinesAnswer {
  /** The machine that was asked. */
  readonly machine: OwnMachineAnswer;
  readonly machines: readonly MachineAnswer[];
}

/** What a drain has done. */
export interface DrainAnswer {
  /** How many sites other machines have now. */
  readonly handedOver: number;
  /** The sites that are still here: no other machine is alive and takes sites, or the store did not answer. */
  readonly kept: readonly string[];
}

const text = v.string();
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const time = v.optional(v.pipe(text, v.metadata({ title: 'time', format: 'date-time' })));

export const OwnMachineAnswerSchema: Schema<OwnMachineAnswer> = v.object({
  name: text,
  state: v.picklist(['attached', 'detached', 'removed', 'closed']),
  isDraining: v.boolean(),
  isController: v.boolean(),
  detachedSince: time,
  stopsAt: time,
});
export const MachineAnswerSchema: Schema<MachineAnswer> = v.object({
  name: text,
  isLive: v.boolean(),
  isDraining: v.boolean(),
  endpoints: v.array(v.object({ host: text, port: count })),
  sites: count,
  isController: v.boolean(),
  stopsAt: time,
});
export const MachinesAnswerSchema: Schema<MachinesAnswer> = v.object({
  machine: OwnMachineAnswerSchema,
  machines: v.array(MachineAnswerSchema),
});
export const DrainAnswerSchema: Schema<DrainAnswer> = v.object({
  handedOver: count,
  kept: v.array(text),
});
