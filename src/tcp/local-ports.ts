/**
 * Chooses the local end of new connections and listeners: a port that nobody uses.
 * @module
 */
import type { IpAddress } from '../base/address.ts';
import type { BlockTable } from './block-table.ts';
import type { Flow } from './flow.ts';
import type { SequenceNumbers } from './isn.ts';
import type { ListenerTable } from './listener.ts';
import { TcpOpenError } from './open-error.ts';
import { pickPort, randomWord } from './ports.ts';
import { TIME_WAIT_MS, type TimeWaitTable } from './time-wait.ts';

export interface LocalPortsOptions {
  readonly numbers: SequenceNumbers;
  readonly random: (length: number) => Uint8Array;
  readonly blocks: BlockTable;
  readonly listeners: ListenerTable;
  readonly timeWait: TimeWaitTable;
}

export class LocalPorts {
  readonly #options: LocalPortsOptions;

  constructor(options: LocalPortsOptions) {
    this.#options = options;
  }

  /**
   * Returns the flow of a new connection.
   *
   * @param localPort 0 takes one that is free for this destination
   * @throws {TcpOpenError} if the port is taken, or none is free.
   */
  flowTo(
    local: IpAddress,
    localPort: number,
    remote: IpAddress,
    remotePort: number,
    now: number
  ): Flow {
    const { numbers, blocks, listeners } = this.#options;
    const flowOf = (port: number): Flow => ({
      family: local.family,
      local,
      localPort: port,
      remote,
      remotePort,
      hash: numbers.flowHash(local.words, port, remote.words, remotePort),
    });
    const isUsed = (port: number): boolean => {
      if (listeners.isTaken(port, local)) return true;
      const flow = flowOf(port);
      return blocks.find(flow) !== undefined || this.#isWaiting(flow, now);
    };
    if (localPort !== 0) {
      if (isUsed(localPort)) throw takenError(localPort);
      return flowOf(localPort);
    }
    const port = pickPort(this.#random32, isUsed);
    if (port < 0) {
      throw new TcpOpenError('EADDRNOTAVAIL', `no port is free for ${remote}:${remotePort}`);
    }
    return flowOf(port);
  }

  /**
   * Returns the port of a new listener.
   *
   * @param port 0 takes one that is free
   * @throws {TcpOpenError} if the port is taken, or none is free.
   */
  listeningPort(local: IpAddress | undefined, port: number): number {
    const isTaken = (candidate: number): boolean =>
      this.#options.listeners.isTaken(candidate, local);
    if (port !== 0) {
      if (isTaken(port)) throw takenError(port);
      return port;
    }
    const free = pickPort(this.#random32, isTaken);
    if (free < 0) throw new TcpOpenError('EADDRNOTAVAIL', 'no port is free');
    return free;
  }

  /** Whether the flow is in TIME-WAIT and may not be used yet: its timestamps must be later than those before. */
  #isWaiting(flow: Flow, now: number): boolean {
    const { timeWait } = this.#options;
    const entry = timeWait.find(flow);
    if (entry < 0) return false;
    const since = timeWait.untilMs(entry) - TIME_WAIT_MS;
    return !timeWait.hasTimestamps(entry) || now - since < TIME_WAIT_REUSE_MS;
  }

  readonly #random32 = (): number => randomWord(this.#options.random);
}

function takenError(port: number): TcpOpenError {
  return new TcpOpenError('EADDRINUSE', `port ${port} is taken`);
}

/** An outgoing connection may use the port of one in TIME-WAIT after this time: its timestamps are later then. */
const TIME_WAIT_REUSE_MS = 1_000;
