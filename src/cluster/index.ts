/**
 * Several machines as one cloud, on a store with leases: who is alive, who allocates addresses, and which machine holds
 * which site.
 * @module
 */
export { ClusterAllocation } from './allocation.ts';
export {
  type ConfirmationReport,
  Confirmations,
  type ConfirmationsEvents,
  type UnconfirmedMachine,
} from './confirmations.ts';
export { type DrainOptions, type DrainReport, drain } from './drain.ts';
export { Election, type ElectionEvents } from './election.ts';
export type { Holder } from './holder-keys.ts';
export { Horizon } from './horizon.ts';
export type { MachineStatus, Machines, MachinesEvents } from './machines.ts';
export { Member, type MemberEvents, type MemberState } from './member.ts';
export { MEMBER_DEFAULTS, type MemberOptions } from './member-options.ts';
export { mayTake } from './next-machine.ts';
export type { RecallRules, RecallWait } from './recall.ts';
export {
  type Claim,
  SITE_CLAIMS_DEFAULTS,
  SiteClaims,
  type SiteClaimsEvents,
  type SiteClaimsOptions,
  type TunnelLiveness,
} from './site-claims.ts';
export type { SiteEpoch } from './site-epoch.ts';
