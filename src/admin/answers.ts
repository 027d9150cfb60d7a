/**
 * What gateways answer with, as it is on the wire: addresses, prefixes, ports and times are texts. A newer gateway may
 * add keys.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import type { RevocationReason } from '../pki/index.ts';
import type { Labels, Owner } from '../registry/index.ts';

/** One page of a list. */
export interface Page<T> {
  readonly items: readonly T[];
  /** The value of `cursor` for the next page; absent on the last one. */
  readonly next?: string | undefined;
}

/** A site of the desired state. */
export interface SiteAnswer {
  readonly name: string;
  readonly sources: readonly string[];
  readonly pools: readonly string[];
  readonly reserved: readonly string[];
  readonly zone: string;
  readonly maxClients: number;
  readonly maxNames: number;
  readonly serviceReserve?: number | undefined;
  readonly clientShare?: number | undefined;
  readonly mtu?: number | undefined;
  readonly reject?: 'drop' | 'unreachable' | 'reset' | undefined;
  readonly labels?: Labels | undefined;
  /** The owner keeps the record, and alone may change it. */
  readonly owner: Owner;
}

/** A service of the desired state. */
export interface ServiceAnswer {
  readonly name: string;
  readonly site: string;
  readonly address: string;
  readonly ports: readonly string[];
  /** The owner keeps the record, and alone may change it. */
  readonly owner: Owner;
}

/** The terms of an exposure. */
export interface TermsAnswer {
  readonly service: string;
  readonly dnsName?: string | undefined;
  readonly clients?: readonly string[] | undefined;
  readonly address?: string | undefined;
  readonly aliases?: readonly string[] | undefined;
  readonly wildcard?: boolean | undefined;
  readonly https?: readonly BindingAnswer[] | undefined;
  readonly svcb?: readonly BindingAnswer[] | undefined;
  readonly notBefore?: string | undefined;
  readonly notAfter?: string | undefined;
  /** The owner keeps the record, and alone may change it. */
  readonly owner: Owner;
}

export interface BindingAnswer {
  readonly prefix?: string | undefined;
  readonly priority: number;
  readonly target: string;
  readonly alpn?: readonly string[] | undefined;
  readonly port?: number | undefined;
}

/** An exposure to one site. */
export interface ExposureAnswer extends TermsAnswer {
  readonly site: string;
}

/** An exposure to the sites with certain labels. */
export interface SelectorAnswer extends TermsAnswer {
  readonly name: string;
  readonly siteSelector: Labels;
}

/** The desired state as its owner states it. */
export interface DesiredAnswer {
  readonly sites: readonly Omit<SiteAnswer, 'owner'>[];
  readonly services: readonly Omit<ServiceAnswer, 'owner'>[];
  readonly exposures: readonly (Omit<ExposureAnswer, 'owner'> | Omit<SelectorAnswer, 'owner'>)[];
}

/** What replacing the desired state has changed. */
export interface DesiredChangeAnswer {
  /** How many sites, services and exposures this interface keeps now. */
  readonly sites: number;
  readonly services: number;
  readonly exposures: number;
  /** How many of them were added or changed. */
  readonly written: number;
  /** How many that were there before are removed. */
  readonly removed: number;
}

/** An enrolment token without its secret. */
export interface TokenAnswer {
  /** Names the token; it is no secret. */
  readonly id: string;
  readonly site: string;
  /** Absent for a token of an older gateway. */
  readonly createdAt?: string | undefined;
  readonly expiresAt: string;
  /** When it was redeemed; absent until then. */
  readonly usedAt?: string | undefined;
  readonly state: 'valid' | 'used' | 'expired';
}

/** A new token. */
export interface NewTokenAnswer {
  /** What the edge gateway enrols with. It is shown once. */
  readonly token: string;
}

/** What is revoked: one of `site`, `serial` and `spki`. */
export interface ScopeAnswer {
  readonly site?: string | undefined;
  /** The serial number of a certificate, in lower-case hexadecimal digits. */
  readonly serial?: string | undefined;
  /** The SHA-256 of a SubjectPublicKeyInfo, in base64url. */
  readonly spki?: string | undefined;
}

/** A revocation in force. */
export interface RevocationAnswer {
  readonly scope: ScopeAnswer;
  readonly reason: RevocationReason;
  readonly revokedAt: string;
  /** The site that is revoked, or whose certificate is; absent for the cloud's, and for a key. */
  readonly site?: string | undefined;
}

/** What a revocation has done. */
export interface ReceiptAnswer {
  readonly scope: ScopeAnswer;
  readonly sites: readonly string[];
  readonly serials: readonly string[];
  /** Certificates of these sites that are still valid. Only revoking the site ends them. */
  readonly unexpired: readonly string[];
  readonly tokensVoided: number;
  readonly tunnelsClosed: number;
  /** How many paths of packets were removed. */
  readonly pathsRemoved: number;
  /** When the revocation was stored and handshakes began to fail, in ms since the request. */
  readonly storedMs: number;
  /** When packets stopped passing at the gateway that was asked, in ms since the request. */
  readonly elapsedMs: number;
  /** The machines at which it is in effect; absent if the gateway is the only one of its cloud. */
  readonly confirmed?: readonly string[] | undefined;
  /** The machines at which it may not be in effect yet; the status of the answer is 202 if there are any. */
  readonly unconfirmed?: readonly UnconfirmedAnswer[] | undefined;
}

/** A machine at which a revocation may not be in effect yet. */
export interface UnconfirmedAnswer {
  readonly machine: string;
  /**
   * When the machine ends all its tunnels at the latest, as it has not reached the store for so long. Absent if it may go
   * on for ever, or is alive and has not answered: stop it, and remove it.
   */
  readonly fencedBy?: string | undefined;
}

/** A presence in use. */
export interface PresenceAnswer {
  /** The site where the address is. */
  readonly realm: string;
  readonly address: string;
  /** The host that it stands for. */
  readonly of: { readonly realm: string; readonly address: string };
}

/** A path that has carried packets. */
export interface PathAnswer {
  readonly ingress: string;
  readonly source: string;
  readonly destination: string;
  readonly egress: string;
  readonly newSource: string;
  readonly newDestination: string;
  readonly packets: number;
  readonly bytes: number;
}

/** The host that a presence stands for. */
export interface WhoisAnswer {
  readonly site: string;
  readonly address: string;
  /** The services that the host offers. */
  readonly services: readonly string[];
}

/** What a name resolves to; none if it is not known. */
export interface NamesAnswer {
  readonly hosts: readonly {
    readonly name: string;
    readonly addresses: readonly string[];
    /** Empty for a host that is only a client. */
    readonly ports: readonly string[];
  }[];
}

/** The CAs, and what the next step of a rollover waits for. */
export interface CaAnswer {
  readonly rollover: string;
  /** The CA that signs. */
  readonly current: CaStatusAnswer;
  /** The CA that is prepared. */
  readonly next?: CaStatusAnswer | undefined;
  /** The CA that signed before, until it is retired. */
  readonly previous?: CaStatusAnswer | undefined;
  /** The latest CRL of this process; absent if nobody has asked for one since it started. */
  readonly crl?:
    | { readonly number: number; readonly thisUpdate: string; readonly nextUpdate: string }
    | undefined;
  /** The sites whose newest certificate is of the previous CA. When that is retired, they have to enrol again. */
  readonly outdated: SiteListAnswer;
  /** The sites whose tunnels `retire` would close: it is refused without `force` while there are any. */
  readonly blocking: SiteListAnswer;
  /** What to do before the CA expires, from 60 days before that. */
  readonly warning?: string | undefined;
}

export interface CaStatusAnswer {
  /** The SHA-256 of the root's SubjectPublicKeyInfo, in base64url: what enrolment tokens pin. */
  readonly spki: string;
  readonly root: CertificateAnswer;
  /** The certificates between the root and those of gateways, the one that signs first. */
  readonly intermediates: readonly CertificateAnswer[];
  /** When the first of these certificates expires. */
  readonly notAfter: string;
}

export interface CertificateAnswer {
  readonly subject: string;
  /** In lower-case hexadecimal digits. */
  readonly serial: string;
  /** The SHA-256 of the certificate. */
  readonly fingerprint: string;
  readonly notBefore: string;
  readonly notAfter: string;
}

/** Sites in the order of their names. */
export interface SiteListAnswer {
  readonly count: number;
  /** The first 100 at most. */
  readonly names: readonly string[];
}

/** What a reload has left to a restart. */
export interface ReloadAnswer {
  /** The keys of the configuration that have changed and take effect after a restart. */
  readonly needRestart: readonly string[];
}

/** The owner that keeps a record. */
export const OwnerSchema: Schema<Owner> = v.picklist(['file', 'admin']);
const text = v.string();
const texts = v.array(text);
const count = v.pipe(v.number(), v.integer(), v.minValue(0));
const form = (title: string, ...examples: string[]) =>
  v.pipe(text, v.metadata({ title, examples }));
const address = form('IP address', '10.0.0.5');
const prefixes = v.array(form('IP prefix', '10.0.0.0/24'));
const ports = v.array(form('ports', 'tcp/5672', 'icmp'));
const time = v.pipe(text, v.metadata({ title: 'time', format: 'date-time' }));
const owner = OwnerSchema;

const SITE = {
  name: text,
  sources: prefixes,
  pools: prefixes,
  reserved: prefixes,
  zone: text,
  maxClients: count,
  maxNames: count,
  serviceReserve: v.optional(count),
  clientShare: v.optional(count),
  mtu: v.optional(count),
  reject: v.optional(v.picklist(['drop', 'unreachable', 'reset'])),
  labels: v.optional(v.record(text, text)),
};
const SERVICE = { name: text, site: text, address, ports };
const binding = v.object({
  prefix: v.optional(text),
  priority: count,
  target: text,
  alpn: v.optional(texts),
  port: v.optional(count),
});
const TERMS = {
  service: text,
  dnsName: v.optional(text),
  clients: v.optional(prefixes),
  address: v.optional(address),
  aliases: v.optional(texts),
  wildcard: v.optional(v.boolean()),
  https: v.optional(v.array(binding)),
  svcb: v.optional(v.array(binding)),
  notBefore: v.optional(time),
  notAfter: v.optional(time),
};
const EXPOSURE = { site: text, ...TERMS };
const SELECTOR = { name: text, siteSelector: v.record(text, text), ...TERMS };

export const SiteAnswerSchema: Schema<SiteAnswer> = v.object({ ...SITE, owner });
export const ServiceAnswerSchema: Schema<ServiceAnswer> = v.object({ ...SERVICE, owner });
export const ExposureAnswerSchema: Schema<ExposureAnswer> = v.object({ ...EXPOSURE, owner });
export const SelectorAnswerSchema: Schema<SelectorAnswer> = v.object({ ...SELECTOR, owner });
export const DesiredAnswerSchema: Schema<DesiredAnswer> = v.object({
  sites: v.array(v.object(SITE)),
  services: v.array(v.object(SERVICE)),
  exposures: v.array(v.union([v.object(SELECTOR), v.object(EXPOSURE)])),
});
export const DesiredChangeAnswerSchema: Schema<DesiredChangeAnswer> = v.object({
  sites: count,
  services: count,
  exposures: count,
  written: count,
  removed: count,
});
export const TokenAnswerSchema: Schema<TokenAnswer> = v.object({
  id: text,
  site: text,
  createdAt: v.optional(time),
  expiresAt: time,
  usedAt: v.optional(time),
  state: v.picklist(['valid', 'used', 'expired']),
});
export const NewTokenAnswerSchema: Schema<NewTokenAnswer> = v.object({ token: text });
const SCOPE = { site: v.optional(text), serial: v.optional(text), spki: v.optional(text) };
/** The reasons of a revocation. */
export const ReasonSchema: Schema<RevocationReason> = v.picklist([
  'unspecified',
  'keyCompromise',
  'affiliationChanged',
  'superseded',
  'cessationOfOperation',
  'privilegeWithdrawn',
]);
export const RevocationAnswerSchema: Schema<RevocationAnswer> = v.object({
  scope: v.object(SCOPE),
  reason: ReasonSchema,
  revokedAt: time,
  site: v.optional(text),
});
export const ReceiptAnswerSchema: Schema<ReceiptAnswer> = v.object({
  scope: v.object(SCOPE),
  sites: texts,
  serials: texts,
  unexpired: texts,
  tokensVoided: count,
  tunnelsClosed: count,
  pathsRemoved: count,
  storedMs: v.number(),
  elapsedMs: v.number(),
  confirmed: v.optional(texts),
  unconfirmed: v.optional(v.array(v.object({ machine: text, fencedBy: v.optional(time) }))),
});
export const PresenceAnswerSchema: Schema<PresenceAnswer> = v.object({
  realm: text,
  address,
  of: v.object({ realm: text, address }),
});
export const PathAnswerSchema: Schema<PathAnswer> = v.object({
  ingress: text,
  source: address,
  destination: address,
  egress: text,
  newSource: address,
  newDestination: address,
  packets: v.number(),
  bytes: v.number(),
});
export const WhoisAnswerSchema: Schema<WhoisAnswer> = v.object({
  site: text,
  address,
  services: texts,
});
export const NamesAnswerSchema: Schema<NamesAnswer> = v.object({
  hosts: v.array(v.object({ name: text, addresses: v.array(address), ports })),
});
const certificate = v.object({
  subject: text,
  serial: text,
  fingerprint: text,
  notBefore: time,
  notAfter: time,
});
const ca = v.object({
  spki: text,
  root: certificate,
  intermediates: v.array(certificate),
  notAfter: time,
});
const siteList = v.object({ count, names: texts });
export const CaAnswerSchema: Schema<CaAnswer> = v.object({
  rollover: text,
  current: ca,
  next: v.optional(ca),
  previous: v.optional(ca),
  crl: v.optional(v.object({ number: count, thisUpdate: time, nextUpdate: time })),
  outdated: siteList,
  blocking: siteList,
  warning: v.optional(text),
});
export const ReloadAnswerSchema: Schema<ReloadAnswer> = v.object({ needRestart: texts });

/** Returns the schema of one page of a list. */
export function pageSchema<T>(item: Schema<T>): Schema<Page<T>> {
  return v.object({ items: v.array(item), next: v.optional(text) });
}
