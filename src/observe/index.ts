/**
 * What a program observes of a running gateway: its log, its metrics, and whether it is ready.
 * @module
 */
export { CounterSums } from './counter-sums.ts';
export { EventLoopDelay } from './event-loop-delay.ts';
export { DURATION_BOUNDS, Histogram } from './histogram.ts';
export { errorFields, LOG_EVENTS, type LogEvent } from './log-events.ts';
export { type LogFields, type Logger, silentLogger } from './logger.ts';
export type {
  HistogramBucket,
  HistogramFamily,
  HistogramSample,
  MetricFamily,
  MetricHead,
  MetricLabels,
  MetricSample,
  ValueFamily,
} from './metric.ts';
export { MetricSet } from './metric-set.ts';
export {
  METRIC_PREFIX,
  METRICS,
  type MetricDefinition,
  type MetricName,
} from './metric-table.ts';
export { encodeMetrics, METRICS_CONTENT_TYPE } from './metric-text.ts';
export {
  METRICS_SERVER_LIMITS,
  MetricsServer,
  type MetricsServerOptions,
} from './metrics-server.ts';
export {
  READINESS_SUBJECTS,
  type Readiness,
  type ReadinessReason,
  type ReadinessSubject,
  readinessOf,
} from './readiness.ts';
