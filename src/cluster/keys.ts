/**
 * The entries by which the machines of a cloud know of each other: their keys, and schemas of their values.
 *
 * | key | value | ends with |
 * | --- | --- | --- |
 * | `meta` | which store's data this is: `StoreMeta` | |
 * | `machine/<name>` | that a machine is one of the cloud | `Member.remove` |
 * | `worker/<name>` | where a live machine can be reached | its lease |
 * | `fence/<name>` | compared by every transaction of the machine | its lease |
 * | `applied/<name>` | the version up to which the machine has applied changes of address leases | its lease |
 * | `controller` | the machine that allocates addresses | its lease |
 * | `holder/<site>` | the machine at which the site's tunnel is | its lease |
 * | `want/<site>/<name>` | a machine's question whether the holder has a live tunnel | its lease |
 * | `confirm/<name>` | the version up to which revocations are in effect at the machine | its lease |
 * | `recall/<name>/<key>` | an entry as the machine had it when the store was restored | the restore |
 * | `recalled/<name>` | that these entries are complete | the restore |
 * | `restored` | whose recalled entries count | the restore |
 *
 * A value that does not match its schema counts as absent. Fields that a schema does not know are ignored, so that a
 * later version may add some.
 * @module
 */
import * as v from 'valibot';
import type { HostPort } from '../base/host-port.ts';
import type { Schema } from '../base/schema.ts';
import type { Json } from '../store/index.ts';
import type { StoreMeta } from '../store/meta.ts';

export const CONTROLLER_KEY = 'controller';
export const MACHINES = 'machine/';
export const WORKERS = 'worker/';
export const FENCES = 'fence/';
export const APPLIED = 'applied/';
export const HOLDERS = 'holder/';
export const WANTS = 'want/';
export const CONFIRMS = 'confirm/';
export const RECALLS = 'recall/';
export const RECALLED = 'recalled/';
export const RESTORED_KEY = 'restored';

export const MetaSchema: Schema<StoreMeta> = v.looseObject({
  cluster: v.string(),
  id: v.optional(v.string()),
  cloud: v.optional(v.string()),
  versionBase: v.optional(v.pipe(v.number(), v.safeInteger())),
}) as Schema<StoreMeta>;

export interface MachineRecord {
  /** After how long without the store the machine ends all tunnels, in ms; null: never. */
  readonly maxDetachedMs: number | null;
}

export const MachineSchema: Schema<MachineRecord> = v.object({
  maxDetachedMs: v.nullable(v.pipe(v.number(), v.minValue(0))),
});

export interface WorkerRecord {
  /** The lease of the machine, under which other machines hand sites over to it. */
  readonly lease: string;
  /** Where edges reach the machine. */
  readonly endpoints: readonly HostPort[];
  /** The machine takes no sites any more. */
  readonly draining: boolean;
}

export const WorkerSchema: Schema<WorkerRecord> = v.object({
  lease: v.string(),
  endpoints: v.array(v.object({ host: v.string(), port: v.number() })),
  draining: v.boolean(),
});

export interface FenceRecord {
  readonly lease: string;
  /** How long the lease lasts without a renewal. */
  readonly ttlMs: number;
}

export const FenceSchema: Schema<FenceRecord> = v.object({ lease: v.string(), ttlMs: v.number() });

/** Up to which version of the store a machine has done something. */
export interface VersionRecord {
  readonly version: number;
}

export const VersionSchema: Schema<VersionRecord> = v.object({ version: v.number() });

/** The machine that has a role or a site, and the lease under which it has it. */
export interface OwnerRecord {
  readonly machine: string;
  readonly lease: string;
}

export const OwnerSchema: Schema<OwnerRecord> = v.object({
  machine: v.string(),
  lease: v.string(),
});

/** An entry as a machine had it; without a value if it had none. */
export interface RecallRecord {
  readonly value?: Json | undefined;
}

export const RecallSchema: Schema<RecallRecord> = v.object({
  value: v.optional(v.unknown()),
}) as Schema<RecallRecord>;

/** What a machine has recalled. */
export interface RecalledRecord {
  /** `LeasingStore.clusterId` of the store that was restored. */
  readonly cluster: string;
  /** The last version that the machine has seen; 0 for a process that has no memory of the store. */
  readonly seen: number;
  /** The version of the data that `recall/<name>/` has; 0 if it has nothing. */
  readonly version: number;
  /** An operator has said instead that the machine is off. */
  readonly removed: boolean;
}

export const RecalledSchema: Schema<RecalledRecord> = v.object({
  cluster: v.string(),
  seen: v.number(),
  version: v.number(),
  removed: v.boolean(),
});

/** How a store comes into force again. */
export interface RestoredRecord {
  readonly cluster: string;
  /** The machine whose entries count; null if none has any. */
  readonly machine: string | null;
  readonly versionBase: number;
}

export const RestoredSchema: Schema<RestoredRecord> = v.object({
  cluster: v.string(),
  machine: v.nullable(v.string()),
  versionBase: v.number(),
});

/** A want says all in its key. */
export const MarkSchema: Schema<object> = v.object({});

/** Divides `<first>/<machine>` at the last slash, since the name of a machine has none. */
export function splitName(name: string): readonly [first: string, machine: string] {
  const at = name.lastIndexOf('/');
  return [name.slice(0, Math.max(at, 0)), name.slice(at + 1)];
}
