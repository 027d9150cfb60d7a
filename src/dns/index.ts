/**
 * Names at a site: a zone of what is exposed there, the resolver that answers its clients, and the
 * listener that brings it their queries.
 * @module
 */
export type { ForwardRule, Upstream } from './forward-rules.ts';
export {
  DnsForwarder,
  type DnsForwarderCounters,
  type DnsForwarderOptions,
  type Forwarder,
} from './forwarder.ts';
export { DnsListener, type DnsListenerCounters, type DnsListenerOptions } from './listener.ts';
export type { Edns, Query } from './message.ts';
export {
  type RecordContent,
  RecordType,
  type SoaData,
  type SrvData,
  type ZoneRecord,
} from './record.ts';
export {
  type DnsTransport,
  SiteResolver,
  type SiteResolverCounters,
  type SiteResolverOptions,
} from './resolver.ts';
export type { ResponseRateOptions } from './response-rate.ts';
export { Zone } from './zone.ts';
export type {
  ZoneAnswer,
  ZoneData,
  ZoneHost,
  ZoneOutcome,
  ZonePointer,
  ZonePort,
  ZoneRecordSet,
} from './zone-data.ts';
