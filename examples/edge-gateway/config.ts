/**
 * The edge gateway's file: `edge.yaml` beside this one shows every key.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from 'virtual-presence';
import { type DeviceConfig, DeviceSchema } from '../program/device.ts';
import {
  type DnsConfig,
  DnsSchema,
  type HostPort,
  HostPortSchema,
  PathSchema,
} from '../program/fields.ts';

export interface EdgeConfig {
  readonly stateDirectory: string;
  /** File with the enrolment token; read at the first start only. */
  readonly tokenFile: string;
  /** The cloud gateways' tunnel endpoints, tried in this order. */
  readonly cloud: readonly HostPort[];
  readonly device: DeviceConfig;
  readonly dns: DnsConfig;
}

export const EdgeConfigSchema: Schema<EdgeConfig> = v.strictObject({
  stateDirectory: PathSchema,
  tokenFile: PathSchema,
  cloud: v.pipe(
    v.array(HostPortSchema),
    v.check(({ length }) => length >= 1, 'expected at least one host and port')
  ),
  device: DeviceSchema,
  dns: DnsSchema,
});
