/**
 * Asks the host of a listener whether a peer may come in, and checks its answer. Without a valid answer the peer is
 * refused.
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import * as v from 'valibot';
import type { HostPort } from '../base/host-port.ts';
import type { GatewayIdentity } from '../pki/names.ts';
import {
  CloseCode,
  endpointsSchema,
  epochSchema,
  readClose,
  type TunnelEpoch,
  type TunnelRefusal,
} from './messages.ts';

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
  /** At `hello`: the epoch of the last WELCOME that the peer has taken; undefined if it names none. */
  readonly lastEpoch?: TunnelEpoch | undefined;
}

/** Lets a peer in that several gateways may serve. What it says is sent to the peer in WELCOME. */
export interface TunnelAdmission {
  /** When this side has taken the peer's site. The peer refuses a lower one than its last, with `stale-epoch`. */
  readonly epoch: TunnelEpoch;
  /** Where the peer may dial after a loss, besides what it is configured with: at most 16. Default: nowhere else. */
  readonly endpoints?: readonly HostPort[] | undefined;
}

/** Refuses a peer with `moved`: it dials these endpoints at once, in this order. There are 1 to 16. */
export interface TunnelRedirection {
  readonly moved: readonly HostPort[];
}

/** Undefined lets the peer in, as an admission does. */
export type AuthorizeVerdict = TunnelAdmission | TunnelRedirection | TunnelRefusal | undefined;
export type AuthorizeAnswer = AuthorizeVerdict | Promise<AuthorizeVerdict>;

/** The peer is refused, or let in; then its WELCOME may say more. */
export type HostDecision =
  | { readonly refusal: TunnelRefusal }
  | { readonly refusal: undefined; readonly admission: TunnelAdmission | undefined };

/**
 * @param onDecision called once, in this turn of the event loop if the host answers in it
 * @param onFault called before `onDecision` if the host has thrown, or its answer is not valid; then the peer is refused
 * with `CloseCode.NotAuthorized`
 */
export function askHost(
  authorize: (candidate: TunnelCandidate) => AuthorizeAnswer,
  candidate: TunnelCandidate,
  onDecision: (decision: HostDecision) => void,
  onFault: (error: Error) => void
): void {
  const failClosed = (fault: unknown): HostDecision => {
    onFault(fault instanceof Error ? fault : new Error(`authorize has thrown ${String(fault)}`));
    return { refusal: UNDECIDED };
  };
  let decision: HostDecision;
  try {
    const answer = authorize(candidate);
    if (isPromise(answer)) {
      void Promise.resolve(answer).then(decisionOf).catch(failClosed).then(onDecision);
      return;
    }
    decision = decisionOf(answer);
  } catch (error) {
    decision = failClosed(error);
  }
  onDecision(decision);
}

/** The refusal of a peer that is to dial other endpoints. */
export function redirection(moved: TunnelRefusal['endpoints']): TunnelRefusal {
  return { code: CloseCode.Moved, reason: 'another gateway serves the site', endpoints: moved };
}

/** @throws {TypeError} if a host without types has answered anything else. */
function decisionOf(answer: AuthorizeVerdict): HostDecision {
  if (answer === undefined) return { refusal: undefined, admission: undefined };
  if (v.is(movedSchema, answer)) return { refusal: redirection(answer.moved) };
  if (readClose(answer as never) !== undefined) return { refusal: answer as TunnelRefusal };
  if (v.is(admissionSchema, answer)) return { refusal: undefined, admission: answer };
  const given = typeof answer === 'object' ? JSON.stringify(answer) : String(answer);
  throw new TypeError(
    `authorize must answer undefined, a refusal with a code and a reason, an epoch, or moved with endpoints, not ${given}`
  );
}

function isPromise(answer: AuthorizeAnswer): answer is Promise<AuthorizeVerdict> {
  return typeof (answer as { then?: unknown } | null | undefined)?.then === 'function';
}

const movedSchema = v.strictObject({ moved: v.pipe(endpointsSchema, v.minLength(1)) });
const admissionSchema = v.strictObject({
  epoch: epochSchema,
  endpoints: v.optional(endpointsSchema),
});
const UNDECIDED: TunnelRefusal = {
  code: CloseCode.NotAuthorized,
  reason: 'it could not be decided whether this peer may come in',
};
