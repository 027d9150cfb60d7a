/**
 * One published service: its loopback address, and a listener for each of its ports.
 * @module
 */
import type { SocketHost } from '../socket-host.ts';
import { type ForwardLoad, ForwardServer } from './forward-server.ts';
import { isIn, type ServicePlan, textOf } from './publish-plan.ts';

/** A service as it is published. */
export interface PublishedService {
  /** The full domain name, in lower case. */
  readonly name: string;
  /** Other names for it. */
  readonly aliases: readonly string[];
  /** The addresses of its presences. */
  readonly presences: readonly string[];
  /** Its address on this host; undefined if all addresses of the prefix are in use. */
  readonly loopback: string | undefined;
  /** The TCP ports that are listened on. */
  readonly ports: readonly number[];
  readonly notPublished: readonly NotPublished[];
}

/** Ports of a service that are not listened on. */
export interface NotPublished {
  /** For example `tcp/80`, `tcp/5000-5999` or `udp/53`. */
  readonly ports: string;
  /** The code of the system error, for example `EACCES` or `EADDRINUSE`; undefined if there was none. */
  readonly code: string | undefined;
  readonly reason: string;
}

export class LocalService {
  readonly #host: SocketHost;
  readonly #load: ForwardLoad;
  #loopback: string | undefined;
  readonly #ports = new Map<number, LocalPort>();
  /** Listeners that are closed, whose connections go on. */
  readonly #draining = new Set<ForwardServer>();
  /** The ports of the plan that `start` has not looked at. */
  #due: Iterator<number> = NONE.values();
  #plan: ServicePlan;

  /** @param loopback see `update` */
  constructor(
    host: SocketHost,
    load: ForwardLoad,
    plan: ServicePlan,
    loopback: string | undefined
  ) {
    this.#host = host;
    this.#load = load;
    this.#plan = plan;
    this.update(plan, loopback);
  }

  /**
   * Stops to listen on what is not in the plan. `start` then listens on the rest, and tries again what has failed.
   *
   * @param loopback the address, which does not change; undefined as long as there is none
   */
  update(plan: ServicePlan, loopback: string | undefined): void {
    this.#loopback = loopback;
    this.#plan = plan;
    for (const [port, { server }] of this.#ports) {
      if (plan.listen.has(port)) continue;
      this.#ports.delete(port);
      this.#drain(server);
      if (!isIn(plan.exposed, port)) server.reset();
    }
    this.retry();
  }

  /** `start` tries again what has failed. */
  retry(): void {
    this.#due = (this.#loopback === undefined ? NONE : this.#plan.listen).values();
  }

  /** Listens on more ports, so many at most. Returns how many; fewer than `max` if there are no more. */
  start(max: number): number {
    let started = 0;
    while (started < max) {
      const { done, value: port } = this.#due.next();
      if (done) break;
      const before = this.#ports.get(port);
      if (before !== undefined && !before.hasFailed) continue;
      this.#listen(port, this.#loopback!);
      started++;
    }
    return started;
  }

  /** Resolves when every port that was started is listened on or has failed. */
  async settled(): Promise<void> {
    await Promise.all([...this.#ports.values()].map(({ started }) => started));
  }

  /** Closes the listeners and resets all connections. */
  async close(): Promise<void> {
    for (const { server } of this.#ports.values()) this.#drain(server);
    this.#ports.clear();
    this.#due = NONE.values();
    const servers = [...this.#draining];
    for (const server of servers) server.reset();
    await Promise.all(servers.map((server) => server.close()));
  }

  /** How many ports are listened on, and how many could not be bound. */
  get counts(): { readonly listening: number; readonly unbound: number } {
    let [listening, unbound] = [0, 0];
    for (const { isListening, error } of this.#ports.values()) {
      if (isListening) listening++;
      else if (error !== undefined) unbound++;
    }
    return { listening, unbound };
  }

  get entry(): PublishedService {
    const { service, exposed, overLimit, unsupported } = this.#plan;
    const notPublished: NotPublished[] = [];
    const ports: number[] = [];
    for (const [port, { isListening, error }] of [...this.#ports].sort(([a], [b]) => a - b)) {
      if (isListening) ports.push(port);
      if (error !== undefined) {
        const { code, message: reason } = error;
        notPublished.push({ ports: `tcp/${port}`, code, reason });
      }
    }
    const add = (text: string, reason: string): void => {
      notPublished.push({ ports: text, code: undefined, reason });
    };
    if (this.#loopback === undefined) {
      for (const range of exposed) add(textOf(range), 'all addresses of the prefix are in use');
    } else {
      for (const range of overLimit) add(textOf(range), 'there are maxListeners listeners already');
    }
    for (const range of unsupported) add(range.toString(), 'only TCP is published');
    return {
      name: service.name,
      aliases: service.aliases,
      presences: service.addresses.map(String),
      loopback: this.#loopback,
      ports,
      notPublished,
    };
  }

  #listen(port: number, host: string): void {
    const target = { host: this.#plan.service.name, port };
    const server = new ForwardServer(this.#host, target, this.#load);
    const state: LocalPort = {
      server,
      isListening: false,
      hasFailed: false,
      // The error of the last attempt stands until this one has succeeded.
      error: this.#ports.get(port)?.error,
      started: server.listen({ host, port }).then(
        () => {
          state.isListening = true;
          state.error = undefined;
        },
        (error: NodeJS.ErrnoException) => {
          state.hasFailed = true;
          state.error = error;
        }
      ),
    };
    this.#ports.set(port, state);
  }

  #drain(server: ForwardServer): void {
    this.#draining.add(server);
    void server.close().then(() => this.#draining.delete(server));
  }
}

interface LocalPort {
  readonly server: ForwardServer;
  readonly started: Promise<void>;
  isListening: boolean;
  /** The last attempt has ended by an error. */
  hasFailed: boolean;
  error: NodeJS.ErrnoException | undefined;
}

const NONE: ReadonlySet<number> = new Set();
