/**
 * Whether a gateway can do its work now, and if not, why.
 * @module
 */

/** The part of a gateway that a reason is about. */
export type ReadinessSubject =
  | 'store'
  | 'listener'
  | 'worker'
  | 'machine'
  | 'certificate'
  | 'snapshot'
  | 'tunnel';

/** In the order of the metric `virtual_presence_ready`. */
export const READINESS_SUBJECTS: readonly ReadinessSubject[] = [
  'store',
  'listener',
  'worker',
  'machine',
  'certificate',
  'snapshot',
  'tunnel',
];

export interface ReadinessReason {
  readonly subject: ReadinessSubject;
  /** One sentence: what does not work, and what to do. */
  readonly message: string;
}

export interface Readiness {
  readonly ready: boolean;
  /** Why the gateway is not ready; empty if it is. */
  readonly reasons: readonly ReadinessReason[];
}

export function readinessOf(reasons: readonly ReadinessReason[]): Readiness {
  return { ready: reasons.length === 0, reasons };
}
