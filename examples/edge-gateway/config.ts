/**
 * The edge gateway's file: `edge.yaml` beside this one shows every key.
 * @module
 */
import * as v from 'valibot';
import {
  DeviceOptionsSchema,
  type HostPort,
  type ProxyOption,
  proxyFromEnvironment,
  type ResolvedDeviceOptions,
  type Schema,
} from 'virtual-presence';
import { type DnsConfig, DnsSchema, HostPortSchema, PathSchema } from '../program/fields.ts';

export interface EdgeConfig {
  readonly stateDirectory: string;
  /** File with the enrolment token; read at the first start only. */
  readonly tokenFile: string;
  /** The cloud gateways' tunnel endpoints, tried in this order. */
  readonly cloud: readonly HostPort[];
  /** What leads to those and to the endpoints of the token; without it they are connected to directly. */
  readonly proxy?: ProxyOption | undefined;
  readonly device: ResolvedDeviceOptions;
  readonly dns: DnsConfig;
}

export const EdgeConfigSchema: Schema<EdgeConfig> = v.strictObject({
  stateDirectory: PathSchema,
  tokenFile: PathSchema,
  cloud: v.pipe(
    v.array(HostPortSchema),
    v.check(({ length }) => length >= 1, 'expected at least one host and port')
  ),
  // The library checks what the URL is.
  proxy: v.optional(
    v.union([
      v.pipe(
        v.literal('environment'),
        v.transform((): ProxyOption => proxyFromEnvironment)
      ),
      v.string(),
    ])
  ),
  device: DeviceOptionsSchema,
  dns: DnsSchema,
});
