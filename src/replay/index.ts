/**
 * Replays a capture of a user's own traffic through a `PacketTranslator`, and times it.
 * @module
 */
export {
  type BenchmarkReport,
  benchmark,
  type Machine,
  type MixFigures,
  measureMix,
} from './benchmark.ts';
export { CaptureBytes, CaptureFile, type CaptureSource } from './capture-source.ts';
export {
  type CaptureSummary,
  type ReplayOptions,
  type ReplayReport,
  replayCapture,
} from './replay.ts';
export type { PlanSource } from './replay-plan.ts';
export { reportLines } from './report-text.ts';
export {
  type ClassTime,
  QUICK_TIMING,
  TIMING_DEFAULTS,
  type Timing,
  type TimingEffort,
} from './timing.ts';
