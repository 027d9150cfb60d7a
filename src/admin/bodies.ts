/**
 * The schemas of what operators send. A key that is in the path may be in the body too; then both must say the same.
 * @module
 */
import * as v from 'valibot';
import { chosen, NameText, type Schema, wholeNumber } from '../base/schema.ts';
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

export const SiteBody: Schema<SiteBody> = record({ name: key, ...SITE_ENTRIES });
export const ServiceBody: Schema<ServiceBody> = record({ name: key, ...SERVICE_ENTRIES });
export const ExposureBody: Schema<ExposureBody> = record({ site: key, service: key, ...terms });
export const SelectorBody: Schema<SelectorBody> = record({
  name: key,
  siteSelector: LabelsSchema,
  ...TERM_ENTRIES,
});

function record<T>(entries: v.ObjectEntries): Schema<T> {
  return v.strictObject(entries) as unknown as Schema<T>;
}

/** A whole desired state; what is left out is empty. */
export type DesiredBody = Partial<DesiredInput>;
export const DesiredBody: Schema<DesiredBody> = v.strictObject({
  sites: v.optional(v.array(SiteSchema), []),
  services: v.optional(v.array(ServiceSchema), []),
  exposures: v.optional(v.array(AnyExposureSchema), []),
}) as unknown as Schema<DesiredBody>;

export interface TokenBody {
  readonly site: string;
  /** How long the token is valid, 1 to 2,592,000 (30 days); default 3,600. */
  readonly lifetimeSeconds?: number | undefined;
}

export const TokenBody: Schema<TokenBody> = v.strictObject({
  site: NameText,
  lifetimeSeconds: v.optional(wholeNumber(1, 30 * 86_400)),
});

const reason = v.optional(
  v.picklist([
    'unspecified',
    'keyCompromise',
    'affiliationChanged',
    'superseded',
    'cessationOfOperation',
    'privilegeWithdrawn',
  ] satisfies RevocationReason[])
);
const hash = v.pipe(v.string(), v.maxLength(64));
const bySite = v.strictObject({ site: NameText, reason });
const bySerial = v.strictObject({ serial: hash, reason });
const byKey = v.strictObject({ spki: hash, reason });
/** What to revoke: a site, a certificate or a key. */
export type RevocationBody = RevocationScope & { readonly reason?: RevocationReason | undefined };
export const RevocationBody: Schema<RevocationBody> = chosen([bySite, bySerial, byKey], (input) => {
  if (typeof input !== 'object' || input === null) return bySite;
  if ('serial' in input) return bySerial;
  return 'spki' in input ? byKey : bySite;
});

/** One step of a CA rollover. */
export interface RolloverBody {
  readonly step: CaStep;
  /** For `prepare`: the operator's own CA. Default: a CA is generated. */
  readonly ca?: { readonly certificatePem: string; readonly privateKeyPem: string } | undefined;
  /** For `retire`: whether to close the tunnels of edges that have not renewed; default false. */
  readonly force?: boolean | undefined;
}
export const RolloverBody: Schema<RolloverBody> = v.strictObject({
  step: v.picklist(['prepare', 'activate', 'retire']),
  ca: v.optional(v.strictObject({ certificatePem: v.string(), privateKeyPem: v.string() })),
  force: v.optional(v.boolean()),
});

export interface MoveBody {
  readonly site: string;
  /** The number of the worker, from 0. */
  readonly worker: number;
}
export const MoveBody: Schema<MoveBody> = v.strictObject({
  site: NameText,
  worker: wholeNumber(0, 63),
});

/** A packet as hexadecimal digits; white space is ignored. */
export const PacketText: Schema<string> = v.pipe(
  v.string(),
  v.maxLength(4 * 65_535),
  v.regex(/^\s*([0-9a-fA-F]{2}\s*)+$/, 'bytes as hexadecimal digits'),
  v.transform((text) => text.replace(/\s/g, '')),
  v.maxLength(2 * 65_535)
) as Schema<string>;

const PortOrName = v.pipe(
  v.string(),
  v.regex(
    /^(icmp|(tcp|udp|udplite|sctp)\/[0-9]{1,5}|ip\/[0-9]{1,3})$/,
    'a port such as tcp/5672, icmp or ip/47'
  )
);
const host = v.pipe(v.string(), v.minLength(1), v.maxLength(253));
const byPacket = v.strictObject({ site: NameText, packet: PacketText });
const byNames = v.strictObject({
  site: NameText,
  from: host,
  to: host,
  port: PortOrName,
});
/** A packet by its bytes. */
export interface PacketQuestion {
  /** The site that the packet comes from. */
  readonly site: string;
  /** The packet as hexadecimal digits. */
  readonly packet: string;
}
/** A packet by its ends. */
export interface NamesQuestion {
  /** The site that the packet comes from. */
  readonly site: string;
  /** An address of the site. */
  readonly from: string;
  /** A name in the zone of the site, or an address there. */
  readonly to: string;
  /** A port such as `tcp/5672`, `icmp` or `ip/47`. */
  readonly port: string;
}
/** A packet to explain: its bytes, or from where to where and to which port. */
export type ExplainBody = PacketQuestion | NamesQuestion;
export const ExplainBody: Schema<ExplainBody> = chosen([byNames, byPacket], (input) =>
  typeof input === 'object' && input !== null && 'packet' in input ? byPacket : byNames
);
