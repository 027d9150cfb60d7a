/**
 * One renewal of a tunnel that is up, on the side that dialled: a new first connection under the new
 * certificate, as many further ones as there are, and only then the old ones are drained.
 * @module
 */
import { EnvironmentError, PeerRefusedError } from '../errors.ts';
import { formatIdentity, type GatewayIdentity } from '../pki/names.ts';
import type { TunnelConnection } from './connection.ts';
import type { ConnectionSet } from './connection-set.ts';
import type { CloseCause } from './connection-types.ts';
import type { AttemptOutcome } from './dial-attempt.ts';
import type { ConnectionInfo } from './tunnel.ts';

export interface RenewalOptions {
  /** Whom the new connections must lead to, for messages. */
  readonly peer: GatewayIdentity;
  readonly set: ConnectionSet;
  /** When no connection is dialled any more that is not one of the new ones. */
  readonly ready: Promise<void>;
  /** How many connections carry packets. */
  readonly connections: () => number;
  /** Dials a connection of the tunnel under the new certificate; number 0 is to be the first one. */
  readonly dial: (number: number, outcome: AttemptOutcome) => void;
}

export class Renewal {
  readonly #options: RenewalOptions;
  readonly #whenCut: Promise<void>;
  #onCut: () => void = () => {};
  #isCut = false;

  constructor(options: RenewalOptions) {
    this.#options = options;
    this.#whenCut = new Promise((resolve) => {
      this.#onCut = resolve;
    });
  }

  /** The tunnel has gone down: `run` resolves, whatever it waits for. */
  cut(): void {
    this.#isCut = true;
    this.#onCut();
  }

  /**
   * Resolves when the old connections are gone, or after `cut`. To be called once. When it rejects, the old
   * ones are as they were.
   *
   * @throws {PeerRefusedError} if the peer does not want a connection under the new certificate.
   * @throws {EnvironmentError} if the new first connection cannot be had, or breaks before it is the first.
   */
  async run(): Promise<void> {
    const { set, ready } = this.#options;
    await this.#unlessCut(ready);
    if (this.#isCut) return;
    const connections = this.#options.connections();
    let first: TunnelConnection | undefined;
    const failure = await this.#unlessCut(
      this.#dial(0, (connection, info) => {
        first = connection;
        set.succeed(connection, info);
      })
    );
    if (failure !== undefined) throw this.#errorOf(failure);
    if (!this.#isCut) {
      const further: Promise<unknown>[] = [];
      for (let number = 1; number < connections; number++) {
        further.push(this.#dial(number, (connection, info) => set.join(connection, info)));
      }
      // Those that cannot be had are opened later, if they are needed.
      await this.#unlessCut(Promise.all(further));
    }
    if (this.#isCut) return;
    if (!set.hasSuccessor && set.first !== first) {
      throw new EnvironmentError('the new first connection was lost before it could take over');
    }
    await this.#unlessCut(set.drainOld());
  }

  /** Resolves to why it failed, if it did; never if it is cancelled. */
  #dial(
    number: number,
    onUp: (connection: TunnelConnection, info: ConnectionInfo) => void
  ): Promise<CloseCause | undefined> {
    return new Promise((resolve) => {
      this.#options.dial(number, {
        onUp: (connection, _welcome, info) => {
          onUp(connection, info);
          resolve(undefined);
        },
        onFailed: resolve,
      });
    });
  }

  #unlessCut<T>(done: Promise<T>): Promise<T | undefined> {
    return Promise.race([this.#whenCut.then(() => undefined), done]);
  }

  #errorOf({ by, code, reason }: CloseCause): PeerRefusedError | EnvironmentError {
    const peer = formatIdentity(this.#options.peer);
    if (by === 'peer') {
      return new PeerRefusedError(
        `${peer} refuses a connection to renew the tunnel (${code}): ${reason}`
      );
    }
    return new EnvironmentError(
      `a connection to renew the tunnel cannot be had (${code}): ${reason}`
    );
  }
}
