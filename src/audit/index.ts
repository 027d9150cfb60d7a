/**
 * The audit log: which peers were admitted or refused, and who decided it, in lines whose change is detected.
 * @module
 */
export {
  type AuditCounters,
  AuditLog,
  type AuditLogEvents,
  type AuditLogOptions,
} from './audit-log.ts';
export {
  AuditTrail,
  type AuditTrailEvents,
  type AuditTrailOptions,
  type RefusedHandshake,
} from './audit-trail.ts';
export type { AuditFault } from './chain.ts';
export type { AuditEvent, AuditHead, AuditKind } from './line.ts';
export { AUDIT_LOG_DEFAULTS, type RefusalLimits } from './refusals.ts';
export { type AuditVerdict, type AuditVerifyOptions, verifyAuditLog } from './verify.ts';
