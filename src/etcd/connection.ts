/**
 * The connection to etcd: one endpoint at a time, the next one when it fails; the token of the user; deadlines.
 * @module
 */
import type {
  ChannelCredentials,
  Client,
  ClientDuplexStream,
  Metadata,
  ServiceError,
} from '@grpc/grpc-js';
import { formatHostPort } from '../base/host-port.ts';
import { CallError, Code } from './call-error.ts';
import { CurrentCredentials } from './current-credentials.ts';
import type { Calls, Streams } from './descriptor.ts';
import { type LoadedGrpc, loadGrpc } from './grpc.ts';
import type { EtcdSettings } from './options.ts';

export interface CallOptions {
  /** The time for all attempts, in ms. */
  readonly timeoutMs: number;
  /** Whether the call may be made again when it is not known if it was done. */
  readonly isRepeatable: boolean;
}

/** A stream of requests and answers. It ends once: by `onEnd`, which is called after the last answer. */
export interface Exchange<Request> {
  send(request: Request): void;
  cancel(): void;
}

export class EtcdConnection {
  readonly #settings: EtcdSettings;
  readonly #loaded: LoadedGrpc;
  /** A client of each endpoint; undefined where none is needed yet. */
  readonly #clients: (Client | undefined)[];
  readonly #credentials: CurrentCredentials;
  /** The credentials of each client. */
  readonly #credentialsOf = new WeakMap<Client, ChannelCredentials>();
  /** The number of the endpoint in use. */
  #used = 0;
  /** The token of the user; undefined if another one is needed, or there is no user. */
  #token: string | undefined;
  #isClosed = false;
  /** What ends the pauses between attempts. */
  readonly #pauses = new Set<() => void>();

  private constructor(settings: EtcdSettings, loaded: LoadedGrpc) {
    this.#settings = settings;
    this.#loaded = loaded;
    this.#clients = settings.endpoints.map(() => undefined);
    this.#credentials = new CurrentCredentials(loaded.grpc, settings.credentials);
  }

  /**
   * Loads gRPC. It connects when it is asked for something.
   *
   * @throws {EnvironmentError} if gRPC is not installed.
   */
  static async open(settings: EtcdSettings): Promise<EtcdConnection> {
    return new EtcdConnection(settings, await loadGrpc());
  }

  /** The endpoint in use, as text. */
  get endpoint(): string {
    return formatHostPort(this.#settings.endpoints[this.#used]!);
  }

  /**
   * Calls and returns the answer.
   *
   * @throws {CallError} if there is none, or etcd refuses.
   */
  async call<Path extends keyof Calls>(
    path: Path,
    request: Calls[Path][0],
    { timeoutMs, isRepeatable }: CallOptions
  ): Promise<Calls[Path][1]> {
    const deadlineMs = this.#nowMs() + timeoutMs;
    let isTokenNew = false;
    for (;;) {
      const used = await this.#connected(deadlineMs);
      try {
        const metadata = await this.#metadata(used, deadlineMs);
        return await this.#ask(used, path, request, metadata, deadlineMs);
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        if (error.isOfToken && !isTokenNew && this.#settings.user !== undefined) {
          isTokenNew = true;
          this.#token = undefined;
          continue;
        }
        if (!error.isUnavailable) throw error;
        this.#leave(used);
        if (error.isDoubtful && !isRepeatable) throw error;
        // An attempt with little time would be in doubt for nothing.
        const spareMs = isRepeatable ? PAUSE_MS : timeoutMs / 2;
        if (this.#nowMs() + spareMs >= deadlineMs) throw error;
        await this.#pause();
      }
    }
  }

  /**
   * Opens a stream.
   *
   * @param onEnd is called once, with the reason
   * @throws {CallError} if there is no connection within `timeoutMs`.
   */
  async exchange<Path extends keyof Streams>(
    path: Path,
    timeoutMs: number,
    onAnswer: (answer: Streams[Path][1]) => void,
    onEnd: (error: CallError) => void
  ): Promise<Exchange<Streams[Path][0]>> {
    const deadlineMs = this.#nowMs() + timeoutMs;
    const used = await this.#connected(deadlineMs);
    const metadata = await this.#metadata(used, deadlineMs);
    const { requestSerialize, responseDeserialize } = this.#loaded.codecs.get(path)!;
    const stream: ClientDuplexStream<object, object> = this.#client(used).makeBidiStreamRequest(
      path,
      requestSerialize,
      responseDeserialize,
      metadata
    );
    let hasEnded = false;
    const end = (error: CallError): void => {
      if (hasEnded) return;
      hasEnded = true;
      if (error.isUnavailable) this.#leave(used);
      if (error.isOfToken) this.#token = undefined;
      onEnd(error);
    };
    stream.on('data', onAnswer);
    stream.on('error', (error: ServiceError) => end(callErrorOf(error, true)));
    stream.on('end', () => end(new CallError(Code.Unavailable, 'the stream has ended', true)));
    return {
      send: (request) => stream.write(request),
      cancel: () => {
        hasEnded = true;
        stream.cancel();
      },
    };
  }

  /**
   * Asks over a stream of its own, and returns the first answer.
   *
   * @throws {CallError} if there is none in time.
   */
  async askOnce<Path extends keyof Streams>(
    path: Path,
    request: Streams[Path][0],
    timeoutMs: number
  ): Promise<Streams[Path][1]> {
    const { clock } = this.#settings;
    const deadlineMs = this.#nowMs() + timeoutMs;
    let exchange: Exchange<Streams[Path][0]> | undefined;
    let stopTimer: () => void = () => {};
    try {
      return await new Promise((resolve, reject) => {
        const begin = async (): Promise<void> => {
          exchange = await this.exchange(path, timeoutMs, resolve, reject);
          exchange.send(request);
          const used = this.#used;
          const onTime = (): void => {
            this.#leave(used);
            reject(new CallError(Code.DeadlineExceeded, `no answer for ${timeoutMs} ms`, true));
          };
          stopTimer = clock.after(deadlineMs - this.#nowMs(), onTime, true);
        };
        begin().catch(reject);
      });
    } finally {
      stopTimer();
      exchange?.cancel();
    }
  }

  /** Uses a new connection from now on, to the next endpoint, because the present one does not answer. */
  renew(): void {
    this.#leave(this.#used, true);
  }

  close(): void {
    this.#isClosed = true;
    for (const client of this.#clients) client?.close();
    for (const wake of this.#pauses) wake();
  }

  /** Takes the next endpoint, unless that has happened already. */
  #leave(used: number, isDead = false): void {
    if (isDead) this.#discard(used);
    if (this.#used === used) this.#used = (used + 1) % this.#clients.length;
  }

  /**
   * Waits until the connection to an endpoint is there, and returns its number.
   *
   * @throws {CallError} if there is none in time.
   */
  async #connected(deadlineMs: number): Promise<number> {
    let reason = 'no connection in time';
    while (!this.#isClosed) {
      for (const _ of this.#clients) {
        const used = this.#used;
        const fault = await this.#connect(used, deadlineMs);
        if (fault === undefined) return used;
        reason = fault;
        this.#leave(used);
      }
      if (this.#nowMs() + PAUSE_MS >= deadlineMs) break;
      await this.#pause();
    }
    const endpoints = this.#settings.endpoints.map(formatHostPort).join(', ');
    throw new CallError(Code.Unavailable, `${endpoints} cannot be reached: ${reason}`, false);
  }

  /** Returns why there is no connection; undefined if there is one. */
  async #connect(used: number, deadlineMs: number): Promise<string | undefined> {
    const { connectivityState } = this.#loaded.grpc;
    this.#renewCredentials(used);
    const channel = this.#client(used).getChannel();
    // A host that is off answers nothing, and the next endpoint may work.
    const leftMs = Math.min(deadlineMs - this.#nowMs(), CONNECT_MS);
    const until = new Date(Date.now() + Math.max(leftMs, 0));
    for (;;) {
      const state = channel.getConnectivityState(true);
      if (state === connectivityState.READY) return undefined;
      if (state === connectivityState.TRANSIENT_FAILURE)
        return 'the connection was refused or lost';
      if (state === connectivityState.SHUTDOWN) return 'the connection was closed';
      const hasChanged = await new Promise<boolean>((resolve) => {
        channel.watchConnectivityState(state, until, (error) => resolve(error === undefined));
      });
      if (!hasChanged) return 'no connection in time';
    }
  }

  #ask<Path extends keyof Calls>(
    used: number,
    path: Path,
    request: Calls[Path][0],
    metadata: Metadata,
    deadlineMs: number
  ): Promise<Calls[Path][1]> {
    const { requestSerialize, responseDeserialize } = this.#loaded.codecs.get(path)!;
    const deadline = new Date(Date.now() + Math.max(deadlineMs - this.#nowMs(), 0));
    return new Promise((resolve, reject) => {
      this.#client(used).makeUnaryRequest(
        path,
        requestSerialize,
        responseDeserialize,
        request,
        metadata,
        { deadline },
        (error, answer) => {
          if (error === null) resolve(answer as Calls[Path][1]);
          else reject(callErrorOf(error, true));
        }
      );
    });
  }

  /** Says that a member without a leader must refuse, and who asks. */
  async #metadata(used: number, deadlineMs: number): Promise<Metadata> {
    const metadata = new this.#loaded.grpc.Metadata();
    metadata.set('hasleader', 'true');
    const { user } = this.#settings;
    if (user === undefined) return metadata;
    if (this.#token === undefined) {
      try {
        const path = '/etcdserverpb.Auth/Authenticate';
        this.#token = (await this.#ask(used, path, user, metadata, deadlineMs)).token;
      } catch (error) {
        if (!(error instanceof CallError)) throw error;
        throw new CallError(error.code, error.details, false);
      }
    }
    metadata.set('token', this.#token);
    return metadata;
  }

  #client(number: number): Client {
    let client = this.#clients[number];
    if (client === undefined) {
      const { grpc } = this.#loaded;
      const address = formatHostPort(this.#settings.endpoints[number]!);
      const { present } = this.#credentials;
      client = new grpc.Client(address, present, CHANNEL_OPTIONS);
      this.#credentialsOf.set(client, present);
      this.#clients[number] = client;
    }
    return client;
  }

  /** Gives up a client that is not connected, if there are other credentials than those that it connects with. */
  #renewCredentials(used: number): void {
    const client = this.#clients[used];
    const { READY } = this.#loaded.grpc.connectivityState;
    if (client === undefined || client.getChannel().getConnectivityState(false) === READY) return;
    this.#credentials.refresh();
    if (this.#credentialsOf.get(client) !== this.#credentials.present) this.#discard(used);
  }

  #discard(used: number): void {
    this.#clients[used]?.close();
    this.#clients[used] = undefined;
  }

  async #pause(): Promise<void> {
    if (this.#isClosed) return;
    await new Promise<void>((resolve) => {
      const cancel = this.#settings.clock.after(PAUSE_MS, () => wake(), true);
      const wake = (): void => {
        cancel();
        this.#pauses.delete(wake);
        resolve();
      };
      this.#pauses.add(wake);
    });
  }

  #nowMs(): number {
    return this.#settings.clock.monotonicMs();
  }
}

function callErrorOf({ code, details, message }: ServiceError, wasSent: boolean): CallError {
  return new CallError(code ?? Code.Unknown, details || message, wasSent);
}

/** The time between two attempts. */
const PAUSE_MS = 100;
/** How long a connection may take before the next endpoint is tried. */
const CONNECT_MS = 1000;

const CHANNEL_OPTIONS = {
  // etcd refuses pings that come more often than every 5 s.
  'grpc.keepalive_time_ms': 10_000,
  'grpc.keepalive_timeout_ms': 3000,
  'grpc.initial_reconnect_backoff_ms': 100,
  'grpc.max_reconnect_backoff_ms': 1000,
  'grpc.dns_min_time_between_resolutions_ms': 1000,
  // A page of a list may be larger than the 4 MiB of gRPC.
  'grpc.max_receive_message_length': -1,
  // The environment of the process and the records of the name server have no say in it.
  'grpc.enable_http_proxy': 0,
  'grpc.service_config_disable_resolution': 1,
  // A connection is not shared with the rest of the program, so that it can be closed when it is dead.
  'grpc.use_local_subchannel_pool': 1,
};
