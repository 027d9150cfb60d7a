/**
 * The messages on a tunnel's control channel; the room's README says what they mean.
 * @module
 */
import * as v from 'valibot';
import { PeerProtocolError } from '../errors.ts';
import { parseSchema, type Schema, wholeNumber } from '../schema.ts';
import type { Json } from '../store/index.ts';
import { type Snapshot, SnapshotSchema } from './snapshot.ts';

export interface SnapshotMessage {
  readonly type: 'snapshot';
  readonly snapshot: Snapshot;
}

export interface AckMessage {
  readonly type: 'ack';
  readonly revision: number;
}

export interface StatusMessage {
  readonly type: 'status';
  /** Counters by name; cumulative since the edge was started. */
  readonly counters: Readonly<Record<string, number>>;
}

export type ControlMessage = SnapshotMessage | AckMessage | StatusMessage;

/** The part of a tunnel that the exchange needs. */
export interface ControlChannel {
  /** Returns false when the message could not be taken now. */
  sendControl(message: Json): boolean;
  on(event: 'control', listener: (message: Json) => void): unknown;
  off(event: 'control', listener: (message: Json) => void): unknown;
}

/**
 * Returns the message, or undefined for one of a type that is not known.
 *
 * @throws {PeerProtocolError} if it does not fit its type.
 */
export function parseControlMessage(message: Json): ControlMessage | undefined {
  try {
    const { type } = parseSchema(EnvelopeSchema, message);
    const schema = SCHEMAS.get(type);
    return schema && parseSchema(schema, message);
  } catch (error) {
    throw new PeerProtocolError(`control message: ${(error as Error).message}`, { cause: error });
  }
}

/** Bounds of what an edge may report: names in characters, and how many. */
const MAX_COUNTER_NAME = 64;
const MAX_COUNTERS = 256;

const EnvelopeSchema: Schema<{ type: string }> = v.object({ type: v.string() });

const SCHEMAS: ReadonlyMap<string, Schema<ControlMessage>> = new Map<
  string,
  Schema<ControlMessage>
>([
  ['snapshot', v.object({ type: v.literal('snapshot'), snapshot: SnapshotSchema })],
  ['ack', v.object({ type: v.literal('ack'), revision: wholeNumber(1, Number.MAX_SAFE_INTEGER) })],
  [
    'status',
    v.object({
      type: v.literal('status'),
      counters: v.pipe(
        v.record(
          v.pipe(v.string(), v.maxLength(MAX_COUNTER_NAME)),
          wholeNumber(0, Number.MAX_SAFE_INTEGER)
        ),
        v.check(
          (counters) => Object.keys(counters).length <= MAX_COUNTERS,
          `has more than ${MAX_COUNTERS} counters`
        )
      ),
    }),
  ],
]);
