/**
 * `CurrentCredentials`: the credentials of connections to etcd, which may be renewed while the store is open. Each new
 * connection takes those of that moment.
 * @module
 */
import type { ChannelCredentials } from '@grpc/grpc-js';
import type { Grpc } from './grpc.ts';
import type { EtcdCredentials, EtcdSettings } from './options.ts';

export class CurrentCredentials {
  readonly #grpc: Grpc;
  readonly #source: EtcdSettings['credentials'];
  /** The last credentials that could be used, and what gRPC has made of them. */
  #used: EtcdCredentials | undefined;
  #made: ChannelCredentials;

  /** Takes the present credentials. @throws {Error} what the source throws, or gRPC of what it returns. */
  constructor(grpc: Grpc, source: EtcdSettings['credentials']) {
    this.#grpc = grpc;
    this.#source = source;
    this.#used = typeof source === 'function' ? source() : source;
    this.#made = this.#make(this.#used);
  }

  /** For a new connection. Whoever has another one connects with old credentials. */
  get present(): ChannelCredentials {
    return this.#made;
  }

  /** Asks the source again. While it throws, or returns what is not usable, the credentials before stay in use. */
  refresh(): void {
    if (typeof this.#source !== 'function') return;
    try {
      const next = this.#source();
      if (isSame(next, this.#used)) return;
      this.#made = this.#make(next);
      this.#used = next;
    } catch {
      // The source reports it. A file that is just being replaced is whole at the next attempt.
    }
  }

  #make(credentials: EtcdCredentials | undefined): ChannelCredentials {
    const { credentials: channel } = this.#grpc;
    if (credentials === undefined) return channel.createInsecure();
    const { ca, cert, key } = credentials;
    const [rootCerts, privateKey, chain] = [ca, key, cert].map((pem) =>
      pem === undefined ? null : Buffer.from(pem)
    ) as [Buffer, Buffer | null, Buffer | null];
    return channel.createSsl(rootCerts, privateKey, chain, { rejectUnauthorized: true });
  }
}

function isSame(a: EtcdCredentials, b: EtcdCredentials | undefined): boolean {
  return a.ca === b?.ca && a.cert === b.cert && a.key === b.key;
}
