/**
 * One renewal of a tunnel that is up, on the side that dialled: a new primary connection under the new certificate, as
 * many further ones as there are, and only then the old ones are drained. README.md draws it.
 * @module
 */
import type { SecureContext } from 'node:tls';
import { EnvironmentError, PeerRefusedError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity } from '../pki/names.ts';
import type { TunnelConnection } from './connection.ts';
import type { FurtherConnections } from './connection-scaler.ts';
import type { ConnectionSet } from './connection-set.ts';
import type { UpConnection } from './dial-attempt.ts';
import type { CloseCause } from './tunnel.ts';

export class Renewal {
  readonly #set: ConnectionSet;
  readonly #further: FurtherConnections;
  readonly #context: SecureContext;
  readonly #peer: GatewayIdentity;
  readonly #whenLost: Promise<void>;
  #isLost = false;
  #onLost: () => void = () => {};

  /** @param peer for messages */
  constructor(
    set: ConnectionSet,
    further: FurtherConnections,
    context: SecureContext,
    peer: GatewayIdentity
  ) {
    this.#set = set;
    this.#further = further;
    this.#context = context;
    this.#peer = peer;
    this.#whenLost = new Promise((resolve) => {
      this.#onLost = resolve;
    });
  }

  /** The tunnel has gone down: `run` resolves, whatever it waits for. */
  abandon(): void {
    this.#isLost = true;
    this.#onLost();
  }

  /**
   * Resolves when the old connections are gone, or after `abandon`. It may be called once. When it rejects, the old
   * connections are as they were.
   *
   * @throws {PeerRefusedError} if the peer refuses a connection under the new certificate.
   * @throws {EnvironmentError} if the new primary connection cannot be opened, or breaks before it is the primary one.
   */
  async run(): Promise<void> {
    const set = this.#set;
    // The other side may have taken them already, so they are not cancelled.
    await this.#whileUp(this.#further.whenIdle());
    if (this.#isLost) return;
    const { length } = set.sender.connections;
    let primary: TunnelConnection | undefined;
    const failure = await this.#whileUp(
      this.#dial(0, ({ connection, info }) => {
        primary = connection;
        set.addNext(connection, info);
      })
    );
    if (failure !== undefined) throw this.#errorOf(failure);
    if (!this.#isLost) {
      const further: Promise<unknown>[] = [];
      for (let number = 1; number < length; number++) {
        further.push(this.#dial(number, ({ connection, info }) => set.add(connection, info)));
      }
      // A connection that cannot be opened now is opened later, if it is needed.
      await this.#whileUp(Promise.all(further));
    }
    if (this.#isLost) return;
    if (!set.hasNext && set.primary !== primary) {
      throw new EnvironmentError('the new primary connection was lost before it could take over');
    }
    await this.#whileUp(set.drainOld());
  }

  /** Resolves to the cause if the attempt fails; never if it is cancelled. */
  #dial(number: number, onUp: (up: UpConnection) => void): Promise<CloseCause | undefined> {
    return new Promise((resolve) => {
      const attempt = this.#further.dial(number, this.#context);
      attempt.once('up', (up) => {
        onUp(up);
        resolve(undefined);
      });
      attempt.once('failed', resolve);
    });
  }

  /** Resolves to undefined if the tunnel goes down first. */
  #whileUp<T>(done: Promise<T>): Promise<T | undefined> {
    return Promise.race([this.#whenLost.then(() => undefined), done]);
  }

  #errorOf({ by, code, reason }: CloseCause): PeerRefusedError | EnvironmentError {
    const peer = formatIdentity(this.#peer);
    if (by === 'peer') {
      return new PeerRefusedError(
        `${peer} refuses a connection to renew the tunnel (${code}): ${reason}`
      );
    }
    return new EnvironmentError(
      `a connection to renew the tunnel cannot be opened (${code}): ${reason}`
    );
  }
}
