/**
 * Asks the host whether a peer may come in. Whoever gives no clear answer lets nobody in.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import type { GatewayIdentity } from '../pki/names.ts';
import { type Close, CloseCode, readClose } from './messages.ts';

/** A peer whose certificate is verified, at the moment when the host decides about it. */
export interface TunnelCandidate {
  readonly identity: GatewayIdentity;
  readonly certificate: X509Certificate;
  readonly remoteAddress: string;
  /**
   * When the host is asked: `certificate` when TLS is done and nothing of the peer has been read; `hello` when all else
   * is known and the tunnel is about to be up.
   */
  readonly step: 'certificate' | 'hello';
}

/**
 * Why the host does not want a peer, as the peer is told: `code` is one of `CloseCode`, or one of the host's
 * own of lower-case letters, digits and hyphens; `endpoint`, with `CloseCode.Moved`, where to dial.
 */
export type TunnelRefusal = Close;

/** Undefined lets the peer in. */
export type AuthorizeAnswer = TunnelRefusal | undefined | Promise<TunnelRefusal | undefined>;

/**
 * Asks the host about a peer.
 *
 * @param onAnswer called once, in this turn of the event loop if the host answers in it
 * @param onFault called before `onAnswer` if the host has thrown, or has given what is no answer; the peer is refused
 * with `CloseCode.NotAuthorized` then
 */
export function askHost(
  authorize: (candidate: TunnelCandidate) => AuthorizeAnswer,
  candidate: TunnelCandidate,
  onAnswer: (refusal: TunnelRefusal | undefined) => void,
  onFault: (error: Error) => void
): void {
  const failClosed = (fault: unknown): TunnelRefusal => {
    onFault(fault instanceof Error ? fault : new Error(`authorize has thrown ${String(fault)}`));
    return UNDECIDED;
  };
  let answer: AuthorizeAnswer;
  try {
    answer = authorize(candidate);
  } catch (error) {
    onAnswer(failClosed(error));
    return;
  }
  if (isPromise(answer)) {
    void Promise.resolve(answer).then(checkAnswer).catch(failClosed).then(onAnswer);
    return;
  }
  let refusal: TunnelRefusal | undefined;
  try {
    refusal = checkAnswer(answer);
  } catch (error) {
    refusal = failClosed(error);
  }
  onAnswer(refusal);
}

/** @throws {TypeError} if a host without types has answered neither undefined nor a refusal. */
function checkAnswer(answer: TunnelRefusal | undefined): TunnelRefusal | undefined {
  if (answer === undefined || readClose(answer as never) !== undefined) return answer;
  const given = typeof answer === 'object' ? JSON.stringify(answer) : String(answer);
  throw new TypeError(
    `authorize must answer undefined, or a refusal with a code and a reason, not ${given}`
  );
}

function isPromise(answer: AuthorizeAnswer): answer is Promise<TunnelRefusal | undefined> {
  return typeof (answer as { then?: unknown } | null | undefined)?.then === 'function';
}

const UNDECIDED: TunnelRefusal = {
  code: CloseCode.NotAuthorized,
  reason: 'it could not be decided whether this peer may come in',
};
