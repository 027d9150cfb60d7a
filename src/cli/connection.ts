/**
 * The connection of a command with a gateway that runs: where its admin socket is, calls that are checked before they
 * are sent, lists to their end, and what the gateway's refusals and silence mean for the exit code.
 * @module
 */
import { existsSync } from 'node:fs';
import type { Command } from 'commander';
import * as v from 'valibot';
import {
  type AdminAnswer,
  type AdminCall,
  AdminClient,
  AdminProblemError,
  type CallOf,
  CLOUD_OPERATIONS,
  type CloudOperations,
  EDGE_OPERATIONS,
  type EdgeOperations,
  type Operations,
  type Page,
  type StreamName,
} from '../admin/index.ts';
import { parseSchema, type Schema } from '../base/schema.ts';
import { EnvironmentError } from '../errors.ts';
import { ConfigFile } from './config-file.ts';
import { CommandError, ExitCode, usageError } from './exit.ts';
import type { Io } from './io.ts';

/** Where the gateway of a command is; see `withGateway`. */
export interface GatewayOptions {
  readonly socket?: string | undefined;
  readonly config?: string | undefined;
}

/** Adds the options that say which gateway a command talks to. */
export function withGateway(command: Command): Command {
  return command
    .option('--socket <path>', `the admin socket of the gateway; default: ${DEFAULT_SOCKET}`)
    .option('--config <file>', 'the configuration file of the gateway, whose adminSocket is used');
}

export function connectCloud(io: Io, options: GatewayOptions): Connection<CloudOperations> {
  return new Connection(socketPathOf(io, options), CLOUD_OPERATIONS);
}

export function connectEdge(io: Io, options: GatewayOptions): Connection<EdgeOperations> {
  return new Connection(socketPathOf(io, options), EDGE_OPERATIONS);
}

/** Entries of the list that an operation answers with. */
type ItemOf<O> = CallOf<O> extends { readonly result?: Page<infer I> } ? I : never;

export class Connection<T extends object> {
  readonly #client: AdminClient<T>;
  readonly #operations: T;
  readonly #socketPath: string;

  constructor(socketPath: string, operations: T) {
    this.#client = new AdminClient({ socketPath, operations });
    this.#operations = operations;
    this.#socketPath = socketPath;
  }

  /**
   * Calls an operation.
   *
   * @throws {ConfigError} naming the argument that is wrong; nothing was sent.
   * @throws {CommandError} if the gateway refuses, or none listens.
   * @throws {EnvironmentError} if the connection fails otherwise.
   */
  async call<K extends keyof T & string>(
    name: K,
    call: AdminCall<CallOf<T[K]>>
  ): Promise<AdminAnswer<CallOf<T[K]>>> {
    this.#check(name, call);
    try {
      return await this.#client.call(name, call);
    } catch (error) {
      throw this.#endingOf(error);
    }
  }

  /**
   * Calls an operation that answers with bytes. The loop over them throws an `EnvironmentError` if they end too early,
   * and the signal's reason once that is aborted.
   *
   * @throws as `call` does, and the signal's reason.
   */
  async stream<K extends StreamName<T>>(
    name: K,
    call: AdminCall<CallOf<T[K]>>
  ): Promise<AsyncIterable<Uint8Array>> {
    this.#check(name, call);
    try {
      return await this.#client.stream(name, call);
    } catch (error) {
      throw this.#endingOf(error);
    }
  }

  /** Calls an operation that reads one record; undefined if there is no such record. */
  async find<K extends keyof T & string>(
    name: K,
    call: AdminCall<CallOf<T[K]>>
  ): Promise<AdminAnswer<CallOf<T[K]>> | undefined> {
    try {
      return await this.call(name, call);
    } catch (error) {
      if (isProblem((error as Error).cause, 'ERR_PRESENCE_NOT_FOUND')) return undefined;
      throw error;
    }
  }

  /** Returns all pages of a list. */
  async list<K extends keyof T & string>(
    name: K,
    query: Readonly<Record<string, string | undefined>> = {}
  ): Promise<readonly ItemOf<T[K]>[]> {
    const items: ItemOf<T[K]>[] = [];
    let cursor: string | undefined;
    do {
      const call = { query: { ...query, limit: PAGE, cursor } } as never;
      const { result } = await this.call(name, call);
      const page = result as unknown as Page<ItemOf<T[K]>>;
      items.push(...page.items);
      cursor = page.next;
    } while (cursor !== undefined);
    return items;
  }

  /** The gateway checks the same; an argument that is wrong in itself ends as a fault of the command line. */
  #check(name: string, call: object): void {
    const operation = (this.#operations as Operations)[name]!;
    const { params, query, body } = call as Readonly<Record<string, object | undefined>>;
    if (operation.params !== undefined) parseSchema(operation.params, params);
    if (operation.body !== undefined) parseSchema(operation.body, body);
    if (operation.query === undefined) return;
    const given = Object.entries(query ?? {}).filter(([, value]) => value !== undefined);
    const texts = given.map(([key, value]): [string, string] => [key, String(value)]);
    parseSchema(operation.query, Object.fromEntries(texts));
  }

  #endingOf(error: unknown): unknown {
    if (error instanceof AdminProblemError) return this.#refusalOf(error);
    if (!(error instanceof EnvironmentError)) return error;
    const { code } = (error.cause ?? {}) as NodeJS.ErrnoException;
    if (code !== 'ENOENT' && code !== 'ECONNREFUSED') return error;
    return new CommandError(ExitCode.NotReady, error.message, { cause: error });
  }

  #refusalOf(error: AdminProblemError): CommandError {
    const { status, detail, code, path, remedy } = error.problem;
    if (code === 'ERR_PRESENCE_ADMIN_REQUEST' && (status === 404 || status === 405)) {
      const other = this.#operations === CLOUD_OPERATIONS ? 'a cloud' : 'an edge';
      const message = `the gateway at ${this.#socketPath} does not do this: name the socket of ${other} gateway`;
      return new CommandError(ExitCode.Refused, message, { cause: error });
    }
    const place = path === undefined || detail.startsWith(path) ? '' : `${path}: `;
    const advice = remedy === undefined ? '' : `. ${remedy}`;
    const exitCode = status < 500 ? ExitCode.Refused : ExitCode.Failed;
    return new CommandError(exitCode, `${place}${detail}${advice}`, { cause: error });
  }
}

/** Whether an error is the gateway's refusal with this code. */
export function isProblem(error: unknown, code: string): boolean {
  return error instanceof AdminProblemError && error.code === code;
}

/**
 * Returns the path of the socket: `--socket`, or the `adminSocket` of `--config`, or the environment variable, or the
 * first of the usual places that exists.
 */
function socketPathOf({ env }: Io, { socket, config }: GatewayOptions): string {
  if (socket !== undefined && config !== undefined) {
    throw usageError('give --socket or --config, not both');
  }
  const given = socket ?? (config === undefined ? env[VARIABLE] : socketIn(config));
  if (given === '') throw usageError('the path of the socket is empty');
  const path = given ?? USUAL.find((each) => existsSync(each));
  if (path !== undefined && Buffer.byteLength(path) <= MAX_PATH_BYTES) return path;
  if (path !== undefined) {
    throw usageError(`the path of the socket has more than ${MAX_PATH_BYTES} bytes`);
  }
  const message = `there is no socket of a gateway at ${USUAL.join(' or ')}: start a gateway, name its socket by --socket, or be a user who may open it`;
  throw new CommandError(ExitCode.NotReady, message);
}

function socketIn(config: string): string {
  const file = new ConfigFile(config);
  const { adminSocket } = file.read(v.looseObject({ adminSocket: v.string() }) as Schema<Sockets>);
  return file.resolve(adminSocket);
}

interface Sockets {
  readonly adminSocket: string;
}

/** The longest path that a unix socket of Linux has. */
const MAX_PATH_BYTES = 107;

const VARIABLE = 'VIRTUAL_PRESENCE_SOCKET';

/** The sockets of the units in `systemd`, and the one of a gateway that runs in this directory. */
const USUAL = [
  '/run/virtual-presence-cloud/admin.sock',
  '/run/virtual-presence-edge/admin.sock',
  'admin.sock',
];

const DEFAULT_SOCKET = `the one of --config, else that of the environment variable ${VARIABLE}, else the first of ${USUAL.join(', ')} that exists`;

/** The most that a page may have. */
const PAGE = 1_000;
