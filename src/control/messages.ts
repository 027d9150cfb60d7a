/**
 * The messages on the control channel of a tunnel; the README of this module says what they mean.
 * @module
 */
import * as v from 'valibot';
import { parseSchema, type Schema, wholeNumber } from '../base/schema.ts';
import { PeerProtocolError } from '../errors.ts';
import type { Json } from '../store/index.ts';
import { type Snapshot, SnapshotSchema } from './snapshot.ts';

/** The cloud sends what the site sees from now on. */
export interface SnapshotMessage {
  readonly type: 'snapshot';
  readonly snapshot: Snapshot;
}

/** The edge says that the snapshot of this revision is in force. */
export interface AckMessage {
  readonly type: 'ack';
  readonly revision: number;
}

/** The edge reports its counters. */
export interface StatusMessage {
  readonly type: 'status';
  /** Counters by name, cumulative since the start of the edge. */
  readonly counters: Readonly<Record<string, number>>;
}

/** The cloud sends the trust anchors. */
export interface TrustMessage {
  readonly type: 'trust';
  /** The trust anchors as PEM, one after the other. */
  readonly caPem: string;
  /** Whether the edge's certificate is signed by a CA that goes out of use. */
  readonly renew: boolean;
  /** How long the edge waits before it renews, in ms; 0 if absent. An older edge does not wait. */
  readonly renewInMs?: number | undefined;
}

/** The edge requests its next certificate. */
export interface RenewMessage {
  readonly type: 'renew';
  readonly csrPem: string;
}

/** The cloud answers a `renew` with a certificate. */
export interface CertificateMessage {
  readonly type: 'certificate';
  /** The edge's certificate and its intermediate certificates. */
  readonly certificatePem: string;
  readonly caPem: string;
}

/** The cloud refuses a `renew`. */
export interface RefusalMessage {
  readonly type: 'refusal';
  /** The `code` of an error class of this library, or another `ERR_PRESENCE_...`. */
  readonly code: string;
  readonly message: string;
}

/** The messages of an edge. */
export type EdgeMessage = AckMessage | StatusMessage | RenewMessage;
/** The messages of a cloud. */
export type CloudMessage = SnapshotMessage | TrustMessage | CertificateMessage | RefusalMessage;

/** The part of a tunnel that carries control messages. */
export interface ControlChannel {
  /** Returns false when the message could not be taken now. */
  sendControl(message: Json): boolean;
  on(event: 'control', listener: (message: Json) => void): unknown;
  off(event: 'control', listener: (message: Json) => void): unknown;
}

/**
 * Returns the message of an edge, or undefined for a message of an unknown type.
 *
 * @throws {PeerProtocolError} if it does not fit its type, or if only a cloud may send this type, which is checked
 *   first.
 */
export function parseEdgeMessage(message: Json): EdgeMessage | undefined {
  return parse(message, EDGE_SCHEMAS, (type) => {
    if (CLOUD_SCHEMAS.has(type)) throw new Error(`an edge sent one of type ${type}`);
  });
}

/** Returns the message of a cloud in the same way. A message that only an edge sends has an unknown type here. */
export function parseCloudMessage(message: Json): CloudMessage | undefined {
  return parse(message, CLOUD_SCHEMAS);
}

function parse<T>(
  message: Json,
  schemas: ReadonlyMap<string, Schema<T>>,
  onUnknown: (type: string) => void = () => {}
): T | undefined {
  try {
    const { type } = parseSchema(EnvelopeSchema, message);
    const schema = schemas.get(type);
    if (schema !== undefined) return parseSchema(schema, message);
    onUnknown(type);
    return undefined;
  } catch (error) {
    throw new PeerProtocolError(`control message: ${(error as Error).message}`, { cause: error });
  }
}

/** The longest name of a counter in characters, and the most counters that an edge may report. */
const MAX_COUNTER_NAME = 64;
const MAX_COUNTERS = 256;
/** The longest PEM text in characters; a request for RSA-4096 has about 1,700, a chain a few of these. */
const MAX_PEM = 65_536;
/** The longest time over which the renewals of a fleet may be spread. */
export const MAX_RENEWAL_SPREAD_MS = 3_600_000;
const PemText = v.pipe(v.string(), v.minLength(1), v.maxLength(MAX_PEM));

const EnvelopeSchema: Schema<{ type: string }> = v.object({ type: v.string() });

const EDGE_SCHEMAS: ReadonlyMap<string, Schema<EdgeMessage>> = new Map<string, Schema<EdgeMessage>>(
  [
    [
      'ack',
      v.object({ type: v.literal('ack'), revision: wholeNumber(1, Number.MAX_SAFE_INTEGER) }),
    ],
    [
      'status',
      v.object({
        type: v.literal('status'),
        counters: v.pipe(
          // The number is checked first, because that costs less than to check each counter.
          v.looseObject({}),
          v.check(
            (counters) => Object.keys(counters).length <= MAX_COUNTERS,
            `has more than ${MAX_COUNTERS} counters`
          ),
          v.record(
            v.pipe(v.string(), v.maxLength(MAX_COUNTER_NAME)),
            wholeNumber(0, Number.MAX_SAFE_INTEGER)
          )
        ),
      }),
    ],
    ['renew', v.object({ type: v.literal('renew'), csrPem: PemText })],
  ]
);

const CLOUD_SCHEMAS: ReadonlyMap<string, Schema<CloudMessage>> = new Map<
  string,
  Schema<CloudMessage>
>([
  ['snapshot', v.object({ type: v.literal('snapshot'), snapshot: SnapshotSchema })],
  [
    'trust',
    v.object({
      type: v.literal('trust'),
      caPem: PemText,
      renew: v.boolean(),
      renewInMs: v.optional(wholeNumber(0, MAX_RENEWAL_SPREAD_MS)),
    }),
  ],
  [
    'certificate',
    v.object({ type: v.literal('certificate'), certificatePem: PemText, caPem: PemText }),
  ],
  [
    'refusal',
    v.object({
      type: v.literal('refusal'),
      code: v.pipe(v.string(), v.regex(/^ERR_[A-Z_]{1,60}$/)),
      message: v.pipe(v.string(), v.maxLength(1000)),
    }),
  ],
]);
