/**
 * Translates packets between realms (twice NAT, RFC 2663) and gives each packet a verdict.
 * @module
 */
export { Endpoint, type EndpointInput } from '../base/endpoint.ts';
export { type NamedProtocol, type PortInput, PortRange } from '../base/port-range.ts';
export { type PacketCapture, PcapngCapture, type PcapngCaptureOptions } from './capture.ts';
export {
  type CaptureBatch,
  CaptureBuffer,
  type CapturedPacket,
  type CaptureEnd,
  type CaptureFilter,
} from './capture-buffer.ts';
export type { Explanation, ExplanationStep } from './explain.ts';
export type { FragmentOptions } from './fragments.ts';
export {
  PACKET_TRANSLATOR_DEFAULTS,
  PacketTranslator,
  type PacketTranslatorOptions,
  TRANSLATION_HEADROOM,
} from './packet-translator.ts';
export type { PathPage, PathQuery } from './path-page.ts';
export type { PathStatus } from './path-table.ts';
export type { PathOptions } from './paths.ts';
export type {
  Permit,
  PermitInput,
  PlanChanges,
  PlanChangesInput,
  PlannedRealm,
  Presence,
  PresenceInput,
  Realm,
  RealmInput,
  Reject,
  TranslationPlan,
  TranslationPlanInput,
} from './plan.ts';
export type { ReplyOptions } from './reply.ts';
export type { SessionOptions } from './sessions.ts';
export { type SiteAddresses, SiteFilter } from './site-filter.ts';
export { VERDICT_NAMES, Verdict, type VerdictCounters, type VerdictName } from './verdict.ts';
