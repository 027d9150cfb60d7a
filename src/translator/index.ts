/**
 * Presences to paths, packets to verdicts.
 * @module
 */
export {
  PacketTranslator,
  type PacketTranslatorOptions,
  type PathStatus,
} from './packet-translator.ts';
export type {
  Endpoint,
  Permit,
  Presence,
  Realm,
  TranslationPlan,
} from './plan.ts';
export { type SiteAddresses, SiteGate } from './site-gate.ts';
export { VERDICT_NAMES, Verdict, type VerdictCounters, type VerdictName } from './verdict.ts';
