/**
 * The cloud gateway's file: `cloud.yaml` beside this one shows every key.
 * @module
 */
import * as v from 'valibot';
import { DomainText, type Schema, wholeNumber } from 'virtual-presence';
import { type DeviceConfig, DeviceSchema } from '../program/device.ts';
import {
  type DnsConfig,
  DnsSchema,
  type HostPort,
  HostPortSchema,
  PathSchema,
} from '../program/fields.ts';

export interface CloudConfig {
  readonly trustDomain: string;
  readonly stateDirectory: string;
  readonly adminSocket: string;
  readonly device: DeviceConfig;
  /** Where edges connect. */
  readonly tunnel: HostPort;
  readonly enrolment: {
    readonly listen: HostPort;
    /** The same as edges reach it. */
    readonly endpoints: readonly string[];
  };
  readonly dns: DnsConfig;
  readonly ttlSeconds: number;
  /** Sites, services and exposures; the registry checks them. */
  readonly desired: unknown;
}

const endpoint = v.pipe(
  v.string(),
  v.regex(/^https:\/\/(\[[0-9a-f:.]+\]|[a-z0-9.-]+)(:\d{1,5})?$/i, 'https://HOST:PORT'),
  v.check((text) => URL.canParse(text), 'expected https://HOST:PORT')
);

export const CloudConfigSchema: Schema<CloudConfig> = v.strictObject({
  trustDomain: v.pipe(DomainText, v.regex(/^[a-z0-9.-]+$/, 'a lower-case domain name')),
  stateDirectory: PathSchema,
  adminSocket: PathSchema,
  device: DeviceSchema,
  tunnel: HostPortSchema,
  enrolment: v.strictObject({
    listen: HostPortSchema,
    endpoints: v.pipe(
      v.array(endpoint),
      v.check(({ length }) => length >= 1 && length <= 8, 'expected 1 to 8 endpoints')
    ),
  }),
  dns: DnsSchema,
  ttlSeconds: v.optional(wholeNumber(1, 86_400), 30),
  desired: v.unknown(),
});
