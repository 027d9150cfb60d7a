/**
 * Writes answers and problem documents.
 * @module
 */
import type { ServerResponse } from 'node:http';
import { pipeline } from 'node:stream';
import { Accepted, type HandlerStream, Versioned } from './handler.ts';
import type { AnyOperation } from './operation.ts';
import { AdminRequestError, PROBLEM_TYPE, type Problem, problemOf } from './problem.ts';

/** @throws {TypeError} if the answer cannot be written as JSON; then nothing was sent. */
export function respond(response: ServerResponse, operation: AnyOperation, answer: unknown): void {
  const { result, textType, streamType, creates = false } = operation;
  response.setHeader('connection', 'close');
  if (streamType !== undefined) {
    response.writeHead(200, { 'content-type': streamType });
    // A client that goes away, or a stream that fails, ends both; the client sees that the answer is not complete.
    pipeline(answer as HandlerStream, response, () => {});
    return;
  }
  if (result === undefined) {
    response.writeHead(204).end();
    return;
  }
  const isWrapped = answer instanceof Versioned || answer instanceof Accepted;
  const value = isWrapped ? answer.value : answer;
  const text = textType === undefined ? `${JSON.stringify(value)}\n` : String(value);
  if (answer instanceof Versioned) response.setHeader('etag', `"${answer.version}"`);
  response.setHeader('content-type', textType ?? 'application/json');
  const done = creates ? 201 : 200;
  response.writeHead(answer instanceof Accepted ? 202 : done).end(text);
}

/** Returns the problem document that was written. */
export function refuse(response: ServerResponse, error: unknown): Problem {
  const problem = problemOf(error);
  const allow = error instanceof AdminRequestError ? error.allow.join(', ') : '';
  if (allow !== '') response.setHeader('allow', allow);
  const headers = { 'content-type': PROBLEM_TYPE, connection: 'close' };
  response.writeHead(problem.status, headers).end(`${JSON.stringify(problem)}\n`);
  return problem;
}
