/**
 * `ping`: sends one echo request ([RFC 792](https://www.rfc-editor.org/rfc/rfc792),
 * [RFC 4443 section 4](https://www.rfc-editor.org/rfc/rfc4443#section-4)) and waits for the reply.
 * @module
 */
import { randomBytes } from 'node:crypto';
import type { IpAddress } from '../../base/address.ts';
import { abortError } from '../node/abort.ts';
import {
  checkMs,
  checkSignal,
  checkWhole,
  familyOption,
  wrongType,
} from '../node/argument-checks.ts';
import { ICMP_CODES } from '../node/error-codes.ts';
import { downError, hasCode, type SystemError, systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import type { EchoOutcome } from './echo-requests.ts';
import type { IcmpEndpoint } from './icmp.ts';

export interface PingOptions {
  /** How long to wait for the tunnel and the reply together, in ms; default 5,000. */
  readonly timeout?: number | undefined;
  /** Ends the wait with an AbortError; without it only the reply and the timeout do. */
  readonly signal?: AbortSignal | undefined;
  /** The bytes of the request behind its header, at most 65,507; default 56. */
  readonly size?: number | undefined;
  /** The IP version of the address that is chosen; default 0: either. */
  readonly family?: 0 | 4 | 6 | undefined;
}

export interface PingResult {
  /** The address that answered, as text. */
  readonly address: string;
  /** The bytes of the reply behind its header. */
  readonly bytes: number;
  /** From the call, once the stack is up and the name is looked up, to the reply. */
  readonly rttMs: number;
}

/**
 * Sends an echo request to a name of the site's zone or to an address.
 *
 * @throws system errors ENOTFOUND, ENETDOWN, ENETUNREACH, EHOSTUNREACH, ECONNREFUSED (the host has no ICMP), EMSGSIZE,
 *   EADDRNOTAVAIL (the stack's address is none of the site), ENOBUFS (more than 1,024 requests wait), ETIMEDOUT; an
 *   AbortError; Node's errors if the arguments are wrong.
 */
export async function ping(
  host: SocketHost,
  icmp: IcmpEndpoint,
  target: string,
  options?: PingOptions | null
): Promise<PingResult> {
  const { timeout = DEFAULT_TIMEOUT_MS, signal, size = DEFAULT_SIZE, family = 0 } = options ?? {};
  const timeoutMs = checkMs('options.timeout', timeout);
  checkWhole('options.size', size, 0, MAX_SIZE);
  if (typeof target !== 'string') throw wrongType('target', 'string', target);
  // What the reply calls must not throw: it runs in the device.
  checkSignal(signal);
  if (signal?.aborted) throw abortError(signal);
  const { clock } = host;
  const over = new AbortController();
  const end = (): void => over.abort();
  // Before the timeout, so that a wait of the same length fails with ENETDOWN, which says more.
  const up = host.whenUp(over.signal);
  const stopTimeout = clock.after(timeoutMs, end);
  signal?.addEventListener('abort', end, { once: true });
  let address = target;
  let stopWatch: (() => void) | undefined;
  try {
    await up;
    stopWatch = host.watchTunnel((error) => over.abort(error));
    over.signal.throwIfAborted();
    const { local, remote } = choose(host, target, familyOption(family));
    address = remote.toString();
    const sinceMs = clock.monotonicMs();
    const outcome = await answerTo(icmp, local, remote, size, over.signal);
    const rttMs = clock.monotonicMs() - sinceMs;
    if (outcome === undefined) throw pingError('ENOBUFS', address);
    if (outcome.error === undefined) return { address, bytes: size, rttMs };
    if (outcome.error === 'closed') throw pingError('ENETDOWN', address, host.closedBy);
    throw pingError(ICMP_CODES[outcome.error], address);
  } catch (error) {
    if (hasCode(error, 'ENETDOWN')) throw downError(error, 'ping', { address });
    if (signal?.aborted) throw abortError(signal);
    throw over.signal.aborted ? pingError('ETIMEDOUT', address) : error;
  } finally {
    stopWatch?.();
    stopTimeout();
    signal?.removeEventListener('abort', end);
  }
}

/** Sends a request, and returns what came of it; undefined if too many requests wait. Rejects when `over` is aborted. */
function answerTo(
  icmp: IcmpEndpoint,
  local: IpAddress,
  remote: IpAddress,
  size: number,
  over: AbortSignal
): Promise<EchoOutcome | undefined> {
  return new Promise((resolve, reject) => {
    const request = icmp.request(local, remote, randomBytes(size), resolve);
    if (request === undefined) {
      resolve(undefined);
      return;
    }
    over.addEventListener('abort', () => {
      icmp.forget(request);
      reject(over.reason);
    });
  });
}

/** Returns the first address that may be asked, and the stack's own of its family. */
function choose(
  host: SocketHost,
  target: string,
  family: 0 | 4 | 6
): { local: IpAddress; remote: IpAddress } {
  let failure: SystemError | undefined;
  for (const remote of host.resolve(target, family)) {
    const local = host.localAddress(remote.family);
    const code = local === undefined ? 'ENETUNREACH' : host.refusal('icmp', remote, 0);
    if (local !== undefined && code === undefined) return { local, remote };
    failure ??= pingError(code!, remote.toString(), host.addressFault(remote.family));
  }
  throw failure ?? pingError('EHOSTUNREACH', target);
}

function pingError(code: string, address: string, cause?: unknown): SystemError {
  return systemError(code, 'ping', { address, cause });
}

const DEFAULT_TIMEOUT_MS = 5000;
/** As `ping` has it. */
const DEFAULT_SIZE = 56;
const MAX_SIZE = 65_507;
