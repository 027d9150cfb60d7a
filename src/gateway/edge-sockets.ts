/**
 * What an edge gateway tells the stack of sockets that it has instead of a device.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import type { Snapshot } from '../control/index.ts';
import type { PacketDevice } from '../device/index.ts';
import { ApiMisuseError, ConfigError } from '../errors.ts';
import { SocketStack } from '../sockets/index.ts';
import type { ResolvedStackSettings } from '../sockets/stack-options.ts';
import type { Failure } from '../tunnel/index.ts';
import { closedError } from './when-ready.ts';

/** Opens what the option `device` of the type `sockets` means. */
export function openSockets(
  { type: _, ...settings }: { readonly type: 'sockets' } & ResolvedStackSettings,
  clock: Clock
): SocketStack {
  return new SocketStack({ ...settings, clock });
}

/** A device that is not a stack is told nothing. */
export class EdgeSockets {
  readonly #stack: SocketStack | undefined;
  /** The addresses of the stack that were reported as wrong, joined by commas. */
  #reported = '';

  constructor(device: PacketDevice) {
    if (!(device instanceof SocketStack)) return;
    this.#stack = device;
    // The data plane says when the tunnel is up, but there is none before the enrolment.
    device.linkChanged(false);
  }

  /** @throws {ApiMisuseError} if the device is not a stack. */
  get stack(): SocketStack {
    if (this.#stack !== undefined) return this.#stack;
    throw new ApiMisuseError(
      "the gateway has no sockets: its option device is not of the type 'sockets'"
    );
  }

  get counters(): Readonly<Record<string, number>> {
    return this.#stack?.allCounters ?? {};
  }

  /** A snapshot is in force. Returns an error if the stack's address is not one of the site, and that is news. */
  apply(snapshot: Snapshot): ConfigError | undefined {
    if (this.#stack === undefined) return undefined;
    this.#stack.setSite(snapshot);
    const refused = this.#stack.refusedAddresses.join();
    if (refused === this.#reported) return undefined;
    this.#reported = refused;
    if (refused === '') return undefined;
    const expected = `one of the site's sources ${snapshot.sources.join()} outside its pools`;
    return new ConfigError('device.address', `${refused} cannot be used, expected ${expected}`);
  }

  /** The state of the gateway: connections fail at once where waiting does not help. */
  follow(isRejected: boolean, failure: Failure | undefined): void {
    const isGone = failure?.kind === 'revoked' || failure?.kind === 'unknown-site';
    this.#stack?.setFailure(failure?.error, isRejected || isGone);
    // The site's presences go to others, so no connection of it can go on.
    if (isGone) this.#stack?.interrupt(failure.error);
  }

  /** The gateway closes: the other ends of all connections learn of it while there is a tunnel. */
  async finish(): Promise<void> {
    await this.#stack?.finish(closedError());
  }
}
