/**
 * The schemas of what operators send. A key that is in the path may be in the body too; then both must say the same.
 * @module
 */
import * as v from 'valibot';
import { AddressText, chosen, NameText, type Schema, wholeNumber } from '../base/schema.ts';
import { CaptureQuerySchema } from '../diagnosis/capture-query.ts';
import type {
  CaptureQuery,
  EdgeFlowQuery,
  FlowProtocol,
  FlowQuery,
  PingOptions,
} from '../diagnosis/index.ts';
import type { RevocationReason, RevocationScope } from '../pki/index.ts';
import type {
  DesiredInput,
  ExposureInput,
  SelectorExposureInput,
  ServiceInput,
  SiteInput,
} from '../registry/index.ts';
import {
  AnyExposureSchema,
  LabelsSchema,
  SERVICE_ENTRIES,
  ServiceSchema,
  SITE_ENTRIES,
  SiteSchema,
  TERM_ENTRIES,
} from '../registry/schema.ts';
import { ReasonSchema } from './answers.ts';
import type { CaStep } from './target.ts';

/** A site; its name is in the path. */
export type SiteBody = Omit<SiteInput, 'name'> & { readonly name?: string | undefined };
/** A service; its name is in the path. */
export type ServiceBody = Omit<ServiceInput, 'name'> & { readonly name?: string | undefined };
/** An exposure; its site and service are in the path. */
export type ExposureBody = Omit<ExposureInput, 'site' | 'service'> & {
  readonly site?: string | undefined;
  readonly service?: string | undefined;
};
/** An exposure with a selector; its name is in the path. */
export type SelectorBody = Omit<SelectorExposureInput, 'name'> & {
  readonly name?: string | undefined;
};

const key = v.optional(NameText);
const { service: _, ...terms } = TERM_ENTRIES;

export const SiteBodySchema: Schema<SiteBody> = record({ name: key, ...SITE_ENTRIES });
export const ServiceBodySchema: Schema<ServiceBody> = record({ name: key, ...SERVICE_ENTRIES });
export const ExposureBodySchema: Schema<ExposureBody> = record({
  site: key,
  service: key,
  ...terms,
});
export const SelectorBodySchema: Schema<SelectorBody> = record({
  name: key,
  siteSelector: LabelsSchema,
  ...TERM_ENTRIES,
});

function record<T>(entries: v.ObjectEntries): Schema<T> {
  return v.strictObject(entries) as unknown as Schema<T>;
}

/** A whole desired state; what is left out is empty. */
export type DesiredBody = Partial<DesiredInput>;
export const DesiredBodySchema: Schema<DesiredBody> = v.strictObject({
  sites: v.optional(v.array(SiteSchema), []),
  services: v.optional(v.array(ServiceSchema), []),
  exposures: v.optional(v.array(AnyExposureSchema), []),
}) as unknown as Schema<DesiredBody>;

const records = v.optional(v.array(v.unknown()), []);
/** The lists of a `DesiredBody`; their records are anything. */
export const DesiredFrameSchema: Schema<object> = v.strictObject({
  sites: records,
  services: records,
  exposures: records,
});

export interface TokenBody {
  readonly site: string;
  /** How long the token is valid, 1 to 2,592,000 (30 days); default 3,600. */
  readonly lifetimeSeconds?: number | undefined;
}

export const TokenBodySchema: Schema<TokenBody> = v.strictObject({
  site: NameText,
  lifetimeSeconds: v.optional(wholeNumber(1, 30 * 86_400)),
});

const reason = v.optional(ReasonSchema);
const hash = v.pipe(v.string(), v.maxLength(64));
const bySite = v.strictObject({ site: NameText, reason });
const bySerial = v.strictObject({ serial: hash, reason });
const byKey = v.strictObject({ spki: hash, reason });
/** What to revoke: a site, a certificate or a key. */
export type RevocationBody = RevocationScope & { readonly reason?: RevocationReason | undefined };
export const RevocationBodySchema: Schema<RevocationBody> = chosen(
  [bySite, bySerial, byKey],
  (input) => {
    if (typeof input !== 'object' || input === null) return bySite;
    if ('serial' in input) return bySerial;
    return 'spki' in input ? byKey : bySite;
  }
);

/** A text that no message shows. */
const secret = v.pipe(
  v.string('expected a text, which is not shown'),
  v.maxLength(65_536, 'expected at most 65536 characters')
);

/** One step of a CA rollover. */
export interface RolloverBody {
  readonly step: CaStep;
  /** For `prepare`: the operator's own CA. Default: a CA is generated. */
  readonly ca?: { readonly certificatePem: string; readonly privateKeyPem: string } | undefined;
  /** For `retire`: whether to close the tunnels of edges that have not renewed; default false. */
  readonly force?: boolean | undefined;
}
export const RolloverBodySchema: Schema<RolloverBody> = v.strictObject({
  step: v.picklist(['prepare', 'activate', 'retire']),
  ca: v.optional(
    v.strictObject(
      { certificatePem: secret, privateKeyPem: secret },
      'expected a mapping, which is not shown'
    )
  ),
  force: v.optional(v.boolean()),
});

/** Where to move a site: to another worker of the gateway that is asked, or to another machine of the cloud. */
export type MoveBody = WorkerMoveBody | MachineMoveBody;
export interface WorkerMoveBody {
  readonly site: string;
  /** The number of the worker, from 0. */
  readonly worker: number;
}
export interface MachineMoveBody {
  readonly site: string;
  /** The name of the machine. */
  readonly machine: string;
}
const toWorker = v.strictObject({ site: NameText, worker: wholeNumber(0, 63) });
const toMachine = v.strictObject({ site: NameText, machine: NameText });
export const MoveBodySchema: Schema<MoveBody> = chosen([toWorker, toMachine], (input) =>
  typeof input === 'object' && input !== null && 'machine' in input ? toMachine : toWorker
);

/** A packet as hexadecimal digits; white space is ignored. */
export const PacketText: Schema<string> = v.pipe(
  v.string(),
  v.maxLength(4 * 65_535),
  v.regex(/^\s*([0-9a-fA-F]{2}\s*)+$/, 'bytes as hexadecimal digits'),
  v.transform((text) => text.replace(/\s/g, '')),
  v.maxLength(2 * 65_535)
) as Schema<string>;

const host = v.pipe(v.string(), v.minLength(1), v.maxLength(253));
const port = wholeNumber(0, 65_535);
const protocol = v.picklist([
  'tcp',
  'udp',
  'udplite',
  'sctp',
  'icmp',
  'ip',
] satisfies FlowProtocol[]);

/** The bytes of a packet, from a site. */
export interface PacketBody {
  readonly from: { readonly site: string };
  /** The packet as hexadecimal digits; white space is ignored. */
  readonly packet: string;
}
/** What to explain: a flow by its ends, or a packet by its bytes. */
export type ExplainBody = FlowQuery | PacketBody;
const byPacket = v.strictObject({ from: v.strictObject({ site: NameText }), packet: PacketText });
const byFlow = v.strictObject({
  from: v.strictObject({
    site: NameText,
    address: v.optional(AddressText),
    service: v.optional(NameText),
  }),
  to: host,
  protocol: v.optional(protocol),
  port: v.optional(port),
  sourcePort: v.optional(port),
});
export const ExplainBodySchema: Schema<ExplainBody> = chosen(
  [byFlow, byPacket],
  packetOr(byFlow, byPacket)
);

/** What to explain at an edge: a flow from a host of its site, or a packet by its bytes. */
export type EdgeExplainBody = EdgeFlowQuery | Pick<PacketBody, 'packet'>;
const edgePacket = v.strictObject({ packet: PacketText });
const edgeFlow = v.strictObject({
  from: AddressText,
  to: host,
  protocol: v.optional(protocol),
  port: v.optional(port),
  sourcePort: v.optional(port),
});
export const EdgeExplainBodySchema: Schema<EdgeExplainBody> = chosen(
  [edgeFlow, edgePacket],
  packetOr(edgeFlow, edgePacket)
);

function packetOr(flow: Schema<unknown>, packet: Schema<unknown>) {
  return (input: unknown): Schema<unknown> =>
    typeof input === 'object' && input !== null && 'packet' in input ? packet : flow;
}

/** How to measure the round-trip time of a tunnel; see `PingOptions`. */
export type PingBody = Omit<PingOptions, 'signal'>;
export const PingBodySchema: Schema<PingBody> = v.strictObject({
  count: v.optional(wholeNumber(1, 100)),
  intervalMs: v.optional(wholeNumber(0, 10_000)),
  timeoutMs: v.optional(wholeNumber(1, 10_000)),
});

/** What to capture; see `CaptureQuery`. */
export type CaptureBody = CaptureQuery;
export const CaptureBodySchema: Schema<CaptureBody> = CaptureQuerySchema;
