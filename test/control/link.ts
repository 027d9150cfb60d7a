/**
 * A control channel without a tunnel.
 */
import type { X509Certificate } from 'node:crypto';
import type { EdgeChannel } from '../../src/control/index.ts';
import { ApiMisuseError } from '../../src/errors.ts';
import type { Json } from '../../src/store/index.ts';

/** One end of a channel; what it sends is kept until it is delivered to the other. */
export class FakeChannel implements EdgeChannel {
  certificate: X509Certificate | undefined;
  readonly sent: Json[] = [];
  isFull = false;
  /** A message longer than this, as JSON, is a misuse, as a tunnel has it. */
  maxBytes: number = Number.POSITIVE_INFINITY;
  readonly #listeners = new Set<(message: Json) => void>();

  sendControl(message: Json): boolean {
    const text = JSON.stringify(message);
    if (text.length > this.maxBytes) throw new ApiMisuseError('the message is too long');
    if (this.isFull) return false;
    this.sent.push(JSON.parse(text) as Json);
    return true;
  }

  on(_event: 'control', listener: (message: Json) => void): void {
    this.#listeners.add(listener);
  }

  off(_event: 'control', listener: (message: Json) => void): void {
    this.#listeners.delete(listener);
  }

  get listeners(): number {
    return this.#listeners.size;
  }

  receive(message: Json): void {
    for (const listener of this.#listeners) listener(message);
  }
}

/** Two ends, joined by hand. */
export class Link {
  readonly cloud: FakeChannel = new FakeChannel();
  readonly edge: FakeChannel = new FakeChannel();

  deliver(): void {
    for (const message of this.cloud.sent.splice(0)) this.edge.receive(message);
    for (const message of this.edge.sent.splice(0)) this.cloud.receive(message);
  }
}
