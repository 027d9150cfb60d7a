/**
 * What a gateway would do with a packet, as it is on the wire.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';

export interface ExplainAnswer {
  readonly verdict: string;
  /** The step that decided. The packet passed all steps before it. */
  readonly step: string;
  /** One sentence for an operator. */
  readonly reason: string;
  /** The site that the packet goes to, if it passes. */
  readonly egress?: string | undefined;
  /** The translated packet as hexadecimal digits, if it passes. */
  readonly packet?: string | undefined;
  /** The size in bytes that the packet has to be fragmented to, if it is too large. */
  readonly segmentTo?: number | undefined;
}

export const ExplainAnswer: Schema<ExplainAnswer> = v.object({
  verdict: v.string(),
  step: v.string(),
  reason: v.string(),
  egress: v.optional(v.string()),
  packet: v.optional(v.string()),
  segmentTo: v.optional(v.number()),
});
