/**
 * The diagnosis of a cloud gateway: explanations, captures and measurements, on the parts of the gateway.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import {
  type Capture,
  type CaptureQuery,
  Captures,
  type ExplainedWorld,
  type ExplainQuery,
  explainFlow,
  type FlowExplanation,
  type PingOptions,
  type PingReport,
  ping,
  planCapture,
} from '../diagnosis/index.ts';
import type { CloudParts } from './cloud-parts.ts';

export class CloudDiagnosis {
  readonly #parts: CloudParts;
  readonly #clock: Clock;
  readonly #captures: Captures;
  readonly #world: ExplainedWorld;

  constructor(parts: CloudParts, clock: Clock) {
    this.#parts = parts;
    this.#clock = clock;
    this.#captures = new Captures(parts.workers.diagnosis, clock);
    const { registry, controller, trust, control, workers, tunnels } = parts;
    this.#world = {
      registry,
      lookup: controller.lookup,
      settled: () => controller.settled(),
      snapshot: (site) => controller.snapshot(site),
      isRevoked: (site) => trust.authority.isSiteRevoked(site),
      edge: (site) => control.status(site),
      tunnel: (site) => workers.diagnosis.tunnelStatus(site),
      lastFault: (site) => tunnels.lastFault(site),
      explain: (packet, realm) => workers.explain(packet, realm),
      nowMs: () => clock.wallMs(),
    };
  }

  explain(query: ExplainQuery): Promise<FlowExplanation> {
    return explainFlow(this.#world, query);
  }

  capture(query: CaptureQuery, signal: AbortSignal | undefined): Promise<Capture> {
    const { registry, audit } = this.#parts;
    const plan = planCapture(registry, query);
    return this.#captures.start(plan, signal, (summary) => audit?.capture(plan.filter, summary));
  }

  ping(site: string, options: PingOptions): Promise<PingReport> {
    const { workers } = this.#parts;
    const measure = (timeoutMs: number) => workers.diagnosis.measure(site, timeoutMs);
    return ping(site, measure, options, this.#clock);
  }

  /** Ends the captures that run. */
  close(): Promise<void> {
    return this.#captures.close();
  }
}
