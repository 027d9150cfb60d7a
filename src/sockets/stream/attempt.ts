/**
 * One call of `connect`: waits for the tunnel, looks up the name, and tries the addresses in order until one answers.
 *
 * It exists only while a socket connects. The socket owns the connections and passes their events on to it.
 * @module
 */
import { isIP, type LookupFunction } from 'node:net';
import { IpAddress } from '../../base/address.ts';
import type { Clock } from '../../base/clock.ts';
import { type TcpConnection, TcpEvent, type TcpOwner } from '../../tcp/index.ts';
import { codeOfFailure } from '../node/error-codes.ts';
import { callLookup, type FoundAddress } from '../node/program-lookup.ts';
import { downError, lookupError, systemError } from '../node/system-error.ts';
import type { SocketHost } from '../socket-host.ts';
import type { ConnectTarget } from './arguments.ts';

/** The socket that connects. */
export interface AttemptOwner extends TcpOwner {
  autoSelectFamilyAttemptedAddresses?: string[];
  emit(event: string, ...args: unknown[]): boolean;
  /** Calls it in the async context of the socket. */
  runInContext(callback: () => void): void;
  onConnected(connection: TcpConnection): void;
  onConnectFailed(error: Error): void;
}

export class ConnectAttempt {
  readonly #host: SocketHost;
  readonly #target: ConnectTarget;
  readonly #socket: AttemptOwner;
  readonly #clock: Clock;
  readonly #errors: Error[] = [];
  #addresses: readonly IpAddress[] = [];
  /** How many addresses were tried. */
  #tried = 0;
  #connection: TcpConnection | undefined;
  /** Whether the stack was closed before: the program then learns of the failure in any case. */
  readonly isTooLate: boolean;
  /** No further step is taken. */
  #isStopped = false;
  /** The socket has learned of the outcome, or does not want to. */
  #isOver = false;
  #stopWatch: (() => void) | undefined;
  #stopTimeout: (() => void) | undefined;
  #stopAddressTimeout: (() => void) | undefined;

  constructor(host: SocketHost, target: ConnectTarget, socket: AttemptOwner) {
    this.#host = host;
    this.#target = target;
    this.#socket = socket;
    this.#clock = host.clock;
    this.isTooLate = host.isClosed;
  }

  start(signal?: AbortSignal): void {
    const { connectTimeout } = this.#target.options;
    if (connectTimeout) {
      this.#stopTimeout = this.#clock.after(connectTimeout, () => this.#timeOut());
    }
    // What listeners throw must not become the rejection of this promise.
    this.#host.whenUp(signal).then(
      () => {
        if (!this.#isOver) {
          const untried = (): readonly IpAddress[] =>
            this.#addresses.slice(Math.max(0, this.#tried - 1));
          this.#stopWatch = this.#host.watchTunnel((error) => this.#onDown(error), untried);
        }
        process.nextTick(() => this.#lookUp());
      },
      (error) => process.nextTick(() => this.#fail(this.#downError(error)))
    );
  }

  /** Ends the attempt without a word to the socket. */
  cancel(): void {
    this.#isStopped = true;
    this.#isOver = true;
    this.#stopWatch?.();
    this.#stopTimeout?.();
    this.#dropConnection();
  }

  onTcpEvents(connection: TcpConnection, events: number): void {
    if (connection !== this.#connection) return;
    if ((events & TcpEvent.Connected) !== 0) {
      this.#connection = undefined;
      this.cancel();
      this.#stopAddressTimeout?.();
      this.#socket.onConnected(connection);
    } else if ((events & TcpEvent.Closed) !== 0) {
      this.#addressFailed(this.#closedError(connection));
      this.#tryNext();
    }
  }

  /** Packets do not flow any more. The socket learns of it in a tick, since this may happen in any call of the program. */
  #onDown(reason: Error): void {
    this.#isStopped = true;
    this.#dropConnection();
    const fail = (): void => this.#fail(this.#downError(reason));
    process.nextTick(() => this.#socket.runInContext(fail));
  }

  #lookUp(): void {
    if (this.#isStopped) return;
    const { host, family, options } = this.#target;
    if (isIP(host) !== 0) {
      this.#tryAll([host]);
    } else if (options.lookup != null) {
      this.#callLookup(options.lookup);
    } else {
      let addresses: readonly IpAddress[];
      try {
        addresses = this.#host.resolve(host, family);
      } catch (error) {
        this.#onLookup(error as Error, []);
        return;
      }
      this.#onLookup(
        null,
        addresses.map((address) => ({ address: address.toString(), family: address.family }))
      );
    }
  }

  #callLookup(lookup: LookupFunction): void {
    const { host, family, options } = this.#target;
    const all = family === 0 && options.autoSelectFamily !== false;
    callLookup(lookup, host, { family, hints: options.hints ?? 0, all }, (error, found) => {
      this.#socket.runInContext(() => this.#onLookup(error, found));
    });
  }

  /** @param found undefined if the program's function has not answered with addresses */
  #onLookup(error: Error | null, found: readonly FoundAddress[] | undefined): void {
    const { host, port } = this.#target;
    if (this.#isStopped) return;
    if (found === undefined) {
      this.#fail(systemError('EINVAL', 'connect', { address: host, port }));
      return;
    }
    const reason = error ?? (found.length === 0 ? lookupError('ENOTFOUND', host) : undefined);
    if (reason) {
      this.#socket.emit('lookup', reason, undefined, undefined, host);
      this.#fail(reason);
      return;
    }
    for (const { address, family } of found) {
      this.#socket.emit('lookup', null, address, family, host);
      if (this.#isStopped) return;
    }
    const isOne = this.#target.options.autoSelectFamily === false;
    this.#tryAll((isOne ? found.slice(0, 1) : found).map(({ address }) => address));
  }

  #tryAll(texts: readonly string[]): void {
    try {
      this.#addresses = texts.map((text) => this.#addressOf(text));
    } catch (cause) {
      const { host: address, port } = this.#target;
      this.#fail(systemError('EINVAL', 'connect', { address, port, cause }));
      return;
    }
    if (this.#addresses.length > 1) this.#socket.autoSelectFamilyAttemptedAddresses = [];
    if (this.#host.canReach(this.#addresses)) this.#tryNext();
    else this.#waitForSite();
  }

  #waitForSite(): void {
    this.#host.whenReachable(this.#addresses).then(
      () => process.nextTick(() => this.#tryNext()),
      (error) => process.nextTick(() => this.#fail(this.#downError(error)))
    );
  }

  /** @throws {Error} if it is no address. */
  #addressOf(text: string): IpAddress {
    // What is no address must not be taken for a name.
    return isIP(text) === 0 ? IpAddress.parse(text) : this.#host.resolve(text, 0)[0]!;
  }

  /** Tries addresses until one does not fail at once. */
  #tryNext(): void {
    while (!this.#isStopped) {
      const address = this.#addresses[this.#tried++];
      if (address === undefined) {
        this.#fail(this.#finalError());
        return;
      }
      const { port } = this.#target;
      this.#socket.emit('connectionAttempt', address.toString(), port, address.family);
      if (this.#isStopped) return;
      this.#socket.autoSelectFamilyAttemptedAddresses?.push(`${address}:${port}`);
      const error = this.#connectTo(address);
      if (error === undefined) return;
      this.#addressFailed(error);
    }
  }

  /** Sends a SYN to this address. Returns why that cannot be. */
  #connectTo(remote: IpAddress): Error | undefined {
    const { port, options } = this.#target;
    const { localAddress, localPort = 0, userTimeout } = options;
    const place = { address: remote.toString(), port };
    const refusal = port === 0 ? 'ECONNREFUSED' : this.#host.refusal('tcp', remote, port);
    if (refusal !== undefined) {
      const cause = this.#host.addressFault(remote.family);
      return systemError(refusal, 'connect', { ...place, cause });
    }
    const own = this.#host.localAddress(remote.family);
    if (localAddress && own?.equals(IpAddress.parse(localAddress)) !== true) {
      return systemError('EADDRNOTAVAIL', 'bind', { address: localAddress, port: localPort });
    }
    if (own === undefined) return systemError('ENETUNREACH', 'connect', place);
    try {
      this.#connection = this.#host.tcp.connect(own, localPort, remote, port, this.#socket);
    } catch (error) {
      if (!(error instanceof Error && 'code' in error)) throw error;
      return systemError(String(error.code), 'connect', { ...place, local: `${own}:${localPort}` });
    }
    if (userTimeout) this.#connection.setUserTimeout(userTimeout);
    if (this.#tried < this.#addresses.length) {
      const limitMs = options.autoSelectFamilyAttemptTimeout ?? ADDRESS_TIMEOUT_MS;
      this.#stopAddressTimeout = this.#clock.after(limitMs, () => {
        this.#socket.runInContext(() => this.#timeOutAddress(remote));
      });
    }
    return undefined;
  }

  #timeOutAddress(remote: IpAddress): void {
    const { port } = this.#target;
    const address = remote.toString();
    this.#dropConnection();
    this.#errors.push(systemError('ETIMEDOUT', 'connect', { address, port }));
    this.#socket.emit('connectionAttemptTimeout', address, port, remote.family);
    this.#tryNext();
  }

  #addressFailed(error: Error): void {
    const { port } = this.#target;
    const address = this.#addresses[this.#tried - 1]!;
    this.#dropConnection();
    this.#errors.push(error);
    const { family } = address;
    this.#socket.emit('connectionAttemptFailed', address.toString(), port, family, error);
  }

  #timeOut(): void {
    const { host, port } = this.#target;
    const address = this.#addresses[this.#tried - 1]?.toString() ?? host;
    this.#socket.runInContext(() => {
      this.#fail(systemError('ETIMEDOUT', 'connect', { address, port }));
    });
  }

  #fail(error: Error): void {
    if (this.#isOver) return;
    this.cancel();
    this.#socket.onConnectFailed(error);
  }

  #dropConnection(): void {
    this.#stopAddressTimeout?.();
    this.#stopAddressTimeout = undefined;
    const connection = this.#connection;
    this.#connection = undefined;
    connection?.abort();
    connection?.release();
  }

  #closedError(connection: TcpConnection): Error {
    const { port, options } = this.#target;
    const { localAddress, localPort } = options;
    return systemError(codeOfFailure(connection.failure), 'connect', {
      address: connection.flow.remote.toString(),
      port,
      local: localAddress && localPort ? `${localAddress}:${localPort}` : undefined,
      cause: connection.cause,
    });
  }

  /** Returns the error of the only address, or all of them, as Node does. */
  #finalError(): Error {
    const [first] = this.#errors;
    if (this.#addresses.length === 1) return first!;
    const code = first !== undefined && 'code' in first ? first.code : undefined;
    return Object.assign(new AggregateError(this.#errors), { code });
  }

  /** Returns the error of a stack that is not up. */
  #downError(reason: unknown): Error {
    const { host: address, port } = this.#target;
    return downError(reason, 'connect', { address, port }) as Error;
  }
}

/** How long an address may leave a SYN unanswered if there are others: 2 s is the most that RFC 8305 (section 8) allows. */
const ADDRESS_TIMEOUT_MS = 2_000;
