/**
 * The operations of an edge gateway.
 * @module
 */
import * as v from 'valibot';
import type { Schema } from '../base/schema.ts';
import { type NamesAnswer, NamesAnswerSchema } from './answers.ts';
import {
  type EdgeExplainBody,
  EdgeExplainBodySchema,
  type PingBody,
  PingBodySchema,
} from './bodies.ts';
import {
  type EdgeExplainAnswer,
  EdgeExplainAnswerSchema,
  type PingAnswer,
  PingAnswerSchema,
} from './explanation.ts';
import { DOCUMENT_OPERATION, type Operation } from './operation.ts';
import { type EdgeStatusAnswer, EdgeStatusAnswerSchema } from './status.ts';

export interface EnrolmentBody {
  /** An enrolment token. */
  readonly token: string;
}

export interface EdgeOperations {
  readonly getDocument: typeof DOCUMENT_OPERATION;
  readonly getStatus: Operation<{ result: EdgeStatusAnswer }>;
  readonly lookup: Operation<{ query: { name: string }; result: NamesAnswer }>;
  readonly explain: Operation<{ body: EdgeExplainBody; result: EdgeExplainAnswer }>;
  readonly ping: Operation<{ body: PingBody; result: PingAnswer }>;
  readonly enrol: Operation<{ body: EnrolmentBody; result: EdgeStatusAnswer }>;
}

export const EnrolmentBodySchema: Schema<EnrolmentBody> = v.strictObject({
  token: v.pipe(
    v.string('expected a token as text, which is not shown'),
    v.minLength(1, 'expected a token'),
    v.maxLength(8_192, 'expected at most 8192 characters')
  ),
});

export const EDGE_OPERATIONS: EdgeOperations = {
  getDocument: DOCUMENT_OPERATION,
  getStatus: {
    method: 'GET',
    path: '/v1/status',
    summary: 'The gateway, its tunnel and its counters',
    role: 'viewer',
    result: EdgeStatusAnswerSchema,
  },
  lookup: {
    method: 'GET',
    path: '/v1/lookup',
    summary: 'What a name resolves to at the site',
    role: 'viewer',
    query: v.strictObject({ name: v.pipe(v.string(), v.minLength(1), v.maxLength(253)) }),
    result: NamesAnswerSchema,
  },
  explain: {
    method: 'POST',
    path: '/v1/explain',
    summary: 'Whether a flow or a packet of the site gets to the cloud, and what stops it',
    role: 'viewer',
    body: EdgeExplainBodySchema,
    result: EdgeExplainAnswerSchema,
  },
  ping: {
    method: 'POST',
    path: '/v1/ping',
    summary: 'Measures the round-trip time of the tunnel to the cloud now',
    role: 'viewer',
    body: PingBodySchema,
    result: PingAnswerSchema,
  },
  enrol: {
    method: 'POST',
    path: '/v1/enrolment',
    summary: 'Redeems a token, for the first certificate or for another one',
    role: 'admin',
    body: EnrolmentBodySchema,
    result: EdgeStatusAnswerSchema,
  },
};
