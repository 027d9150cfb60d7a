/**
 * The echo requests that wait for their replies. Each has an identifier of its own.
 * @module
 */
import type { IpAddress } from '../../base/address.ts';
import type { IcmpErrorKind } from '../../tcp/index.ts';

/** What became of an echo request. */
export interface EchoOutcome {
  /** Why it failed; undefined if the reply has come. */
  readonly error: IcmpErrorKind | 'closed' | undefined;
}

export interface EchoRequest {
  readonly identifier: number;
  readonly remote: IpAddress;
  readonly payload: Uint8Array;
  /** Is called once, from within `receive` of the stack: it must not call user code. */
  readonly onOutcome: (outcome: EchoOutcome) => void;
}

export class EchoRequests {
  readonly #random: () => number;
  readonly #requests = new Map<number, EchoRequest>();

  /** @param random returns an unsigned 32-bit integer that nobody can predict */
  constructor(random: () => number) {
    this.#random = random;
  }

  /** How many requests wait. */
  get size(): number {
    return this.#requests.size;
  }

  /** Adds a request with an identifier that cannot be predicted; undefined if too many wait. */
  add(
    remote: IpAddress,
    payload: Uint8Array,
    onOutcome: EchoRequest['onOutcome']
  ): EchoRequest | undefined {
    if (this.#requests.size >= MAX_REQUESTS) return undefined;
    let identifier = this.#random() & 0xffff;
    while (this.#requests.has(identifier)) identifier = (identifier + 1) & 0xffff;
    const request: EchoRequest = { identifier, remote, payload, onOutcome };
    this.#requests.set(identifier, request);
    return request;
  }

  get(identifier: number): EchoRequest | undefined {
    return this.#requests.get(identifier);
  }

  /** Forgets the request; its outcome is not told. */
  remove(request: EchoRequest): void {
    if (this.#requests.get(request.identifier) === request) {
      this.#requests.delete(request.identifier);
    }
  }

  /** Ends the request. */
  settle(request: EchoRequest, error: EchoOutcome['error']): void {
    this.remove(request);
    request.onOutcome({ error });
  }

  /** Ends all requests. */
  close(): void {
    for (const request of [...this.#requests.values()]) this.settle(request, 'closed');
  }
}

const MAX_REQUESTS = 1024;
