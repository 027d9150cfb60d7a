/**
 * The status of a gateway, as it is on the wire.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import { type OwnMachineAnswer, OwnMachineAnswerSchema } from './machines.ts';

/** Counters by their names. */
export type Counters = Readonly<Record<string, number>>;

export interface EndpointAnswer {
  readonly host: string;
  readonly port: number;
}

/** Something that an operator should look at. */
export interface WarningAnswer {
  readonly kind: string;
  /** One sentence that says what is wrong and what to do. */
  readonly message: string;
}

export interface CloudStatusAnswer {
  readonly pid: number;
  /** The machine that was asked; absent if the gateway is the only one of its cloud. */
  readonly machine?: OwnMachineAnswer | undefined;
  readonly listening: {
    /** Where edges connect, one entry for each worker. */
    readonly tunnels: readonly EndpointAnswer[];
    readonly enrolment: EndpointAnswer;
    readonly dns?: EndpointAnswer | undefined;
    readonly device?: EndpointAnswer | undefined;
    readonly metrics?: EndpointAnswer | undefined;
  };
  readonly sites: readonly SiteStatusAnswer[];
  readonly listener: Counters;
  readonly dataPlane: Counters;
  readonly device: Counters;
  /** The workers by number; `pid` is 0 while a worker is down. */
  readonly workers: readonly { readonly pid: number; readonly sites: readonly string[] }[];
  readonly sockets: Counters;
  readonly dns: Counters;
  readonly enrolment: Counters;
  readonly renewals?: Counters | undefined;
  readonly ca: {
    readonly rollover: string;
    readonly spki: string;
    readonly notAfter: string;
    readonly warning?: string | undefined;
  };
  /** How often sites were compared with their records and leases, and what that has found. */
  readonly derivation: DerivationAnswer;
  /** The last line of the audit log; absent if there is no audit log. */
  readonly audit?: { readonly seq: number; readonly hash: string } | undefined;
  readonly warnings: readonly WarningAnswer[];
}

export interface DerivationAnswer {
  /** Comparisons of one site. */
  readonly checkedSites: number;
  /** Comparisons that have found a difference. */
  readonly differences: number;
  /** How often everything was derived anew because of a difference. */
  readonly repairs: number;
}

export interface SiteStatusAnswer {
  readonly name: string;
  /**
   * The number of the worker that holds the site; absent for the cloud, which all workers hold, and where another machine
   * holds the site.
   */
  readonly worker?: number | undefined;
  /** The machine that holds the site; absent while none does, and if the gateway is the only one of its cloud. */
  readonly machine?: string | undefined;
  /** The epoch of that machine's claim of the site: the later claim has the higher number. */
  readonly epoch?: number | undefined;
  readonly revoked: boolean;
  /** Absent while its edge is not connected to the gateway that was asked. */
  readonly edge?: ConnectedEdgeAnswer | undefined;
  readonly pool?: PoolAnswer | undefined;
  /** The number of packets by verdict. */
  readonly verdicts?: Counters | undefined;
}

export interface ConnectedEdgeAnswer {
  /** The last revision that was sent, and the last one that was acknowledged; 0 for none. */
  readonly sentRevision: number;
  readonly appliedRevision: number;
  readonly counters: Counters;
  readonly certificate?:
    | {
        /** In lower-case hexadecimal digits. */
        readonly serial: string;
        readonly notAfter: string;
        /** Whether it is signed by the CA that signs now. */
        readonly isCurrent: boolean;
      }
    | undefined;
}

export interface PoolAnswer {
  /** How many addresses the pools have for leases. */
  readonly capacity: number;
  readonly leased: number;
  /** Released addresses that no presence gets yet. */
  readonly quarantined: number;
  /** One entry for each IP version of the pools. */
  readonly versions: readonly PoolVersionAnswer[];
}

export interface PoolVersionAnswer {
  readonly family: number;
  readonly capacity: number;
  readonly leased: number;
  readonly quarantined: number;
  /** How many addresses all clients can have together, beside services and their reserve. */
  readonly room: number;
  /** How many of these each site is sure of. */
  readonly share: number;
  /** The sites that have, or can have, clients there. */
  readonly clients: readonly {
    readonly site: string;
    /** Addresses in use or in quarantine. */
    readonly held: number;
    /** How many addresses it could hold now if no other site took any. */
    readonly limit: number;
  }[];
}

export interface EdgeStatusAnswer {
  /** Absent before the first enrolment. */
  readonly site?: string | undefined;
  readonly state: 'enrolling' | 'connecting' | 'online' | 'rejected' | 'closed';
  readonly failure?:
    | {
        readonly kind: string;
        readonly party: string;
        readonly remedy: string;
        readonly code: string;
        readonly message: string;
      }
    | undefined;
  readonly addresses: {
    readonly dns?: EndpointAnswer | undefined;
    readonly device?: EndpointAnswer | undefined;
    readonly metrics?: EndpointAnswer | undefined;
  };
  /** The revision of the snapshot in force. */
  readonly revision?: number | undefined;
  /** Until when the snapshot holds without further contact with the cloud. */
  readonly validUntil?: string | undefined;
  /** Why there is no snapshot in force any more. */
  readonly expired?: string | undefined;
  readonly names: number;
  readonly tunnel?:
    | {
        readonly remoteAddress: string;
        readonly connections: number;
        readonly rttMs?: number | undefined;
      }
    | undefined;
  readonly counters: Counters;
  readonly warnings: readonly WarningAnswer[];
}

const text = v.string();
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const time = v.pipe(text, v.metadata({ title: 'time', format: 'date-time' }));
const counters = v.record(text, v.number());
const endpoint = v.object({ host: text, port: count });
const warnings = v.array(v.object({ kind: text, message: text }));
const ca = {
  rollover: text,
  spki: text,
  notAfter: time,
  warning: v.optional(text),
};

const addresses = { capacity: count, leased: count, quarantined: count };
const site = v.object({
  name: text,
  worker: v.optional(count),
  machine: v.optional(text),
  epoch: v.optional(count),
  revoked: v.boolean(),
  edge: v.optional(
    v.object({
      sentRevision: count,
      appliedRevision: count,
      counters,
      certificate: v.optional(v.object({ serial: text, notAfter: time, isCurrent: v.boolean() })),
    })
  ),
  pool: v.optional(
    v.object({
      ...addresses,
      versions: v.array(
        v.object({
          family: count,
          ...addresses,
          room: count,
          share: count,
          clients: v.array(v.object({ site: text, held: count, limit: count })),
        })
      ),
    })
  ),
  verdicts: v.optional(counters),
});

export const CloudStatusAnswerSchema: Schema<CloudStatusAnswer> = v.object({
  pid: count,
  machine: v.optional(OwnMachineAnswerSchema),
  listening: v.object({
    tunnels: v.array(endpoint),
    enrolment: endpoint,
    dns: v.optional(endpoint),
    device: v.optional(endpoint),
    metrics: v.optional(endpoint),
  }),
  sites: v.array(site),
  listener: counters,
  dataPlane: counters,
  device: counters,
  workers: v.array(v.object({ pid: count, sites: v.array(text) })),
  sockets: counters,
  dns: counters,
  enrolment: counters,
  renewals: v.optional(counters),
  ca: v.object(ca),
  derivation: v.object({ checkedSites: count, differences: count, repairs: count }),
  audit: v.optional(v.object({ seq: count, hash: text })),
  warnings,
});

export const EdgeStatusAnswerSchema: Schema<EdgeStatusAnswer> = v.object({
  site: v.optional(text),
  state: v.picklist(['enrolling', 'connecting', 'online', 'rejected', 'closed']),
  failure: v.optional(
    v.object({ kind: text, party: text, remedy: text, code: text, message: text })
  ),
  addresses: v.object({
    dns: v.optional(endpoint),
    device: v.optional(endpoint),
    metrics: v.optional(endpoint),
  }),
  revision: v.optional(count),
  validUntil: v.optional(time),
  expired: v.optional(text),
  names: count,
  tunnel: v.optional(
    v.object({ remoteAddress: text, connections: count, rttMs: v.optional(v.number()) })
  ),
  counters,
  warnings,
});
