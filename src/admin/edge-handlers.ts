/**
 * Answers the operations of an edge gateway.
 * @module
 */
import type { SnapshotHost } from '../control/index.ts';
import type {
  EdgeExplainQuery,
  EdgeExplanation,
  PingOptions,
  PingReport,
} from '../diagnosis/index.ts';
import type { PresenceError } from '../errors.ts';
import { documentOf } from './documents.ts';
import type { EdgeOperations } from './edge-operations.ts';
import type { Handlers } from './handler.ts';
import type { WrittenAs } from './operation.ts';
import type { EdgeStatusAnswer } from './status.ts';

/** An edge gateway, for `edgeHandlers`. An error that a method throws becomes the answer to the operator. */
export interface EdgeTarget {
  status(): EdgeTargetStatus;
  /** Returns the hosts that a name resolves to at the site; none if the name is not known. */
  lookup(name: string): readonly SnapshotHost[];
  /** Explains whether a flow or a packet gets to the cloud. */
  explain(query: EdgeExplainQuery): EdgeExplanation;
  /** Measures the round-trip time of the tunnel. */
  ping(options: PingOptions): Promise<PingReport>;
  /** Redeems a token. */
  enrol(token: string): Promise<void>;
}

/** The status of an edge gateway, with errors in place of their texts. */
export type EdgeTargetStatus = Omit<WrittenAs<EdgeStatusAnswer>, 'failure' | 'expired'> & {
  readonly failure:
    | {
        readonly kind: string;
        readonly party: string;
        readonly remedy: string;
        readonly error: PresenceError;
      }
    | undefined;
  readonly expired: Error | undefined;
};

/** Returns the handlers for an `AdminServer`. */
export function edgeHandlers(target: EdgeTarget): Handlers<EdgeOperations> {
  const status = (): WrittenAs<EdgeStatusAnswer> => {
    const { failure, expired, ...rest } = target.status();
    return {
      ...rest,
      ...(failure && { failure: failureOf(failure) }),
      ...(expired && { expired: expired.message }),
    };
  };
  return {
    getDocument: () => documentOf('edge-api'),
    getStatus: status,
    lookup: ({ query: { name } }) => ({ hosts: target.lookup(name) }),
    explain: ({ body }) =>
      target.explain('packet' in body ? { packet: Buffer.from(body.packet, 'hex') } : body),
    ping: ({ body, signal }) => target.ping({ ...body, signal }),
    enrol: async ({ body: { token } }) => {
      await target.enrol(token);
      return status();
    },
  };
}

function failureOf({
  error,
  ...failure
}: NonNullable<EdgeTargetStatus['failure']>): NonNullable<EdgeStatusAnswer['failure']> {
  return { ...failure, code: error.code, message: error.message };
}
