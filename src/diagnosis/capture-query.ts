/**
 * Which packets somebody wants to capture, and for how long.
 * @module
 */
import * as v from 'valibot';
import { IpPrefix, type PrefixInput } from '../base/prefix.ts';
import { NameText, PrefixText, parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import type { Registry } from '../registry/index.ts';
import type { CaptureEnd, CaptureFilter } from '../translator/index.ts';

/** One end of the flows to capture: everything, unless it is narrowed. */
export interface CaptureEndQuery {
  readonly site?: string | undefined;
  /** A service: the packets of its host at its home. Instead of `site` and `hosts`. */
  readonly service?: string | undefined;
  /** Prefixes of the real addresses of hosts. */
  readonly hosts?: readonly PrefixInput[] | undefined;
}

/** Without `from` and `to`: all packets. Packets in both directions are captured, unless `oneWay` is set. */
export interface CaptureQuery {
  readonly from?: CaptureEndQuery | undefined;
  readonly to?: CaptureEndQuery | undefined;
  /** Whether only packets from `from` to `to` are captured; default false. */
  readonly oneWay?: boolean | undefined;
  /** When the capture ends by itself, in ms: 1 to 60,000. Default 60,000. */
  readonly durationMs?: number | undefined;
  /** How long the file becomes at most, in bytes: 1,024 to 67,108,864 (64 MiB). Default 67,108,864. */
  readonly maxBytes?: number | undefined;
  /** How many bytes of each packet are captured at most: 20 to 256. Default 256. */
  readonly snapLength?: number | undefined;
}

/** What is used where a member is absent, which is also the most that it may be. */
export const CAPTURE_LIMITS: Readonly<{
  durationMs: number;
  maxBytes: number;
  snapLength: number;
}> = Object.freeze({ durationMs: 60_000, maxBytes: 64 * 2 ** 20, snapLength: 256 });

export interface CapturePlan {
  readonly filter: CaptureFilter;
  readonly durationMs: number;
  readonly maxBytes: number;
}

/**
 * Reads what somebody wants to capture.
 *
 * @throws {ConfigError} naming the part that is wrong, or the site or service that does not exist.
 */
export function planCapture(
  registry: Pick<Registry, 'site' | 'service'>,
  query: CaptureQuery
): CapturePlan {
  const { from, to, oneWay, durationMs, maxBytes, snapLength } = parseSchema(
    CaptureQuerySchema,
    query
  );
  return {
    filter: {
      from: endOf(registry, 'from', from),
      to: endOf(registry, 'to', to),
      isOneWay: oneWay ?? false,
      snapLength: snapLength ?? CAPTURE_LIMITS.snapLength,
    },
    durationMs: durationMs ?? CAPTURE_LIMITS.durationMs,
    maxBytes: maxBytes ?? CAPTURE_LIMITS.maxBytes,
  };
}

function endOf(
  registry: Pick<Registry, 'site' | 'service'>,
  path: string,
  { site, service: name, hosts }: CaptureEndQuery = {}
): CaptureEnd {
  if (name === undefined) {
    if (site !== undefined && registry.site(site) === undefined) {
      throw new ConfigError(`${path}.site`, `"${site}" is not a site`);
    }
    return { realm: site, hosts: hosts?.map(String) };
  }
  const service = registry.service(name);
  if (service === undefined) throw new ConfigError(`${path}.service`, `"${name}" is not a service`);
  if (site !== undefined || hosts !== undefined) {
    throw new ConfigError(path, 'expected a service, or a site and hosts, not both');
  }
  return { realm: service.site, hosts: [IpPrefix.around(service.address.canonical()).toString()] };
}

const EndSchema: Schema<CaptureEndQuery> = v.strictObject({
  site: v.optional(NameText),
  service: v.optional(NameText),
  hosts: v.optional(v.pipe(v.array(PrefixText), v.minLength(1), v.maxLength(64))),
}) as Schema<CaptureEndQuery>;
export const CaptureQuerySchema: Schema<CaptureQuery> = v.strictObject({
  from: v.optional(EndSchema),
  to: v.optional(EndSchema),
  oneWay: v.optional(v.boolean()),
  durationMs: v.optional(wholeNumber(1, CAPTURE_LIMITS.durationMs)),
  maxBytes: v.optional(wholeNumber(1024, CAPTURE_LIMITS.maxBytes)),
  snapLength: v.optional(wholeNumber(20, CAPTURE_LIMITS.snapLength)),
}) as Schema<CaptureQuery>;
