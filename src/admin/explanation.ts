/**
 * What diagnosis answers with, as it is on the wire: addresses are texts, packets hexadecimal digits.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import type { EdgeStageName, FlowEnds, PingReport, Stage, StageName } from '../diagnosis/index.ts';

/** What would let a packet pass a stage. */
export interface FixAnswer {
  /** One sentence. */
  readonly why: string;
  /** A command that does it; absent if it takes another way, which `why` names. */
  readonly command?: string | undefined;
  /** The same as a change of the desired state: `kind` and the record as it has to be. */
  readonly change?: object | undefined;
  /** The owner of the record that is to be changed. */
  readonly owner?: string | undefined;
}

export interface StageAnswer<Name extends string> extends Omit<Stage<Name>, 'fix'> {
  readonly fix?: FixAnswer | undefined;
}

/** Whether a flow passes, by stages. */
export interface ExplainAnswer {
  readonly passes: boolean;
  /** The first stage that stops the packet; absent if it passes. */
  readonly droppedAt?: StageName | undefined;
  /** All stages in one line. */
  readonly summary: string;
  readonly stages: readonly StageAnswer<StageName>[];
  /** The fix of the stage that stops the packet. */
  readonly fix?: FixAnswer | undefined;
  /** The site of the sender. */
  readonly from: string;
  /** The site of the host that the destination stands for; absent if it stands for none. */
  readonly to?: string | undefined;
  readonly protocol?: string | undefined;
  /** The packet at the site of the sender. */
  readonly before?: FlowEnds | undefined;
  /** The packet at the site of the receiver. */
  readonly after?: FlowEnds | undefined;
  /** What the data plane says. */
  readonly verdict?: string | undefined;
  /** The step of the data plane that decided. */
  readonly step?: string | undefined;
  /** The packet that the data plane was asked about, as hexadecimal digits. */
  readonly packet?: string | undefined;
  /** The translated packet. */
  readonly translated?: string | undefined;
}

/** Whether a packet gets from a site to the cloud, by stages. */
export interface EdgeExplainAnswer {
  readonly passes: boolean;
  readonly droppedAt?: EdgeStageName | undefined;
  readonly summary: string;
  readonly stages: readonly StageAnswer<EdgeStageName>[];
  readonly fix?: FixAnswer | undefined;
  readonly before?: FlowEnds | undefined;
  /** What the filter says. */
  readonly verdict?: string | undefined;
}

/** Round-trip times in ms; see `PingReport`. */
export type PingAnswer = PingReport;

const text = v.string();
const ms = v.optional(v.number());
const fix = v.object({
  why: text,
  command: v.optional(text),
  change: v.optional(v.looseObject({ kind: text })),
  owner: v.optional(text),
});
const ends = v.object({
  source: text,
  sourcePort: v.optional(v.number()),
  destination: text,
  port: v.optional(v.number()),
});
const stageOf = <Name extends string>(names: readonly Name[]) =>
  v.object({
    name: v.picklist(names),
    outcome: v.picklist(['ok', 'no', 'unknown']),
    reason: text,
    fix: v.optional(fix),
  });
const STAGES = [
  'destination',
  'source',
  'permission',
  'presence',
  'site',
  'tunnel',
  'programmed',
  'acknowledged',
  'translation',
  'reply',
] as const satisfies StageName[];
const EDGE_STAGES = [
  'snapshot',
  'destination',
  'filter',
  'tunnel',
] as const satisfies EdgeStageName[];

export const ExplainAnswerSchema: Schema<ExplainAnswer> = v.object({
  passes: v.boolean(),
  droppedAt: v.optional(v.picklist(STAGES)),
  summary: text,
  stages: v.array(stageOf(STAGES)),
  fix: v.optional(fix),
  from: text,
  to: v.optional(text),
  protocol: v.optional(text),
  before: v.optional(ends),
  after: v.optional(ends),
  verdict: v.optional(text),
  step: v.optional(text),
  packet: v.optional(text),
  translated: v.optional(text),
});
export const EdgeExplainAnswerSchema: Schema<EdgeExplainAnswer> = v.object({
  passes: v.boolean(),
  droppedAt: v.optional(v.picklist(EDGE_STAGES)),
  summary: text,
  stages: v.array(stageOf(EDGE_STAGES)),
  fix: v.optional(fix),
  before: v.optional(ends),
  verdict: v.optional(text),
});
const times = { sent: v.number(), received: v.number(), minMs: ms, avgMs: ms, maxMs: ms };
export const PingAnswerSchema: Schema<PingAnswer> = v.object({
  site: text,
  ...times,
  connections: v.array(v.object(times)),
}) as Schema<PingAnswer>;
