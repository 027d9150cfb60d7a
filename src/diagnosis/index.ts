/**
 * Diagnosis: whether a packet passes, what stops it, and what would mend that.
 * @module
 */
export {
  type Capture,
  type CaptureSource,
  type CaptureSummary,
  Captures,
} from './capture.ts';
export {
  CAPTURE_LIMITS,
  type CaptureEndQuery,
  type CapturePlan,
  type CaptureQuery,
  planCapture,
} from './capture-query.ts';
export { explainFlow } from './explain.ts';
export {
  type EdgeExplainQuery,
  type EdgeExplanation,
  type EdgeFlowQuery,
  type EdgeStageName,
  type ExplainedEdge,
  explainAtEdge,
} from './explain-edge.ts';
export type {
  Fix,
  FixChange,
  FlowEnds,
  FlowExplanation,
  Stage,
  StageName,
} from './explanation.ts';
export { type PingOptions, type PingReport, type PingTimes, ping } from './ping.ts';
export {
  type ExplainQuery,
  type FlowProtocol,
  type FlowQuery,
  type FlowSource,
  type PacketQuery,
  parseFlow,
  parseFlowSource,
} from './query.ts';
export type { ExplainedWorld, SiteTunnelStatus } from './world.ts';
