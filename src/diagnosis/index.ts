/**
 * Diagnosis: whether a packet passes, what stops it, and what would mend that.
 * @module
 */
export { explainFlow } from './explain.ts';
export type {
  Fix,
  FixChange,
  FlowEnds,
  FlowExplanation,
  Stage,
  StageName,
} from './explanation.ts';
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
