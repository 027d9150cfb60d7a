/**
 * The DNS service of a site: the zone with the names of the exposed services, the resolver that answers
 * clients, the listener that takes their queries, and the server that has both.
 * @module
 */
export type { ForwardRule, Upstream } from './forward-rules.ts';
export {
  DNS_FORWARDER_DEFAULTS,
  DnsForwarder,
  type DnsForwarderCounters,
  type DnsForwarderOptions,
  type Forwarder,
} from './forwarder.ts';
export {
  DNS_LISTENER_DEFAULTS,
  DnsListener,
  type DnsListenerCounters,
  type DnsListenerOptions,
} from './listener.ts';
export type { Edns, Query } from './message.ts';
export {
  type DnsOptions,
  DnsOptionsSchema,
  type ResolvedDnsOptions,
  type ResolverRules,
} from './options.ts';
export {
  type RecordContent,
  RecordType,
  type SoaData,
  type SrvData,
  type ZoneRecord,
} from './record.ts';
export {
  type DnsTransport,
  SITE_RESOLVER_DEFAULTS,
  SiteResolver,
  type SiteResolverCounters,
  type SiteResolverOptions,
} from './resolver.ts';
export { RESPONSE_RATE_DEFAULTS, type ResponseRateOptions } from './response-rate.ts';
export { DnsServer, type DnsServerOptions } from './server.ts';
export type { SvcbData } from './svcb.ts';
export { Zone } from './zone.ts';
export type {
  ZoneAnswer,
  ZoneBinding,
  ZoneData,
  ZoneHost,
  ZoneOutcome,
  ZonePatch,
  ZonePointer,
  ZonePort,
  ZoneRecordSet,
} from './zone-data.ts';
