/**
 * The option `metrics` of both gateways.
 * @module
 */
import * as v from 'valibot';
import type { HostPort, HostPortInput } from '../base/host-port.ts';
import { ListenSchema } from '../base/host-port-schema.ts';
import type { Schema } from '../base/schema.ts';

/** Where a gateway can be watched. */
export interface MetricsOptions {
  /**
   * Where `/metrics`, `/healthz` and `/readyz` are served over HTTP, for example `127.0.0.1:9470`. Everybody who can
   * connect may read them: they name the sites.
   */
  readonly listen: HostPortInput;
}

export interface ResolvedMetricsOptions {
  readonly listen: HostPort;
}

export const MetricsOptionsSchema: Schema<ResolvedMetricsOptions> = v.strictObject({
  listen: ListenSchema,
}) as unknown as Schema<ResolvedMetricsOptions>;
