/**
 * Calls between two processes, over Node's channel between parent and child. Each side offers an object; the other
 * side calls the object's methods. The arguments and results are structured clones, and the types of the object
 * are all that checks them, for both sides come from one version of this library.
 *
 * The order is kept: a call begins in the turn of the event loop in which it arrives, so what was called first has
 * begun first, and is done first up to where it has to wait.
 * @module
 */
import { ApiMisuseError, EnvironmentError, PresenceError } from '../errors.ts';

/**
 * An object as another process sees it. A method without a result stays one: it is a notification, and nobody
 * learns what became of it. Every other method returns a promise.
 */
export type Remote<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R
    ? (...args: A) => [R] extends [NoResult] ? void : Promise<Awaited<R>>
    : never;
};

type NoResult = ReturnType<() => void>;

/** The names of all methods of an object that have no result; a type has no names at run time. */
export type Notifications<T> = Readonly<
  Record<
    {
      [K in keyof T]: T[K] extends (...args: never[]) => infer R
        ? [R] extends [NoResult]
          ? K
          : never
        : never;
    }[keyof T],
    true
  >
>;

/** The part of `process` and of `ChildProcess` that is needed. */
export interface RpcPort {
  send?(message: unknown, callback?: (error: Error | null) => void): boolean;
  on(event: 'message', listener: (message: unknown) => void): unknown;
}

export class Rpc<T extends object> {
  /**
   * What the other side offers. A call rejects with what the other side threw: the code, the message and the
   * fields of the error survive, its class does not. A call of what is closed rejects with an `EnvironmentError`;
   * a notification of it goes nowhere. A notification throws if its arguments cannot be cloned.
   */
  readonly remote: Remote<T>;
  readonly #port: RpcPort;
  readonly #calls = new Map<number, Settlement>();
  #local: Methods = {};
  #lastId = 0;
  #closed: Error | undefined;

  /** @param notifications the methods of the other side's object that have no result */
  constructor(port: RpcPort, notifications: Notifications<T>) {
    this.#port = port;
    const isNotification = new Set<string | symbol>(Object.keys(notifications));
    this.remote = new Proxy({} as Remote<T>, {
      get: (_, name) => {
        // What a promise is asked when it is resolved with this object.
        if (typeof name === 'symbol' || name === 'then') return undefined;
        return (...args: unknown[]) =>
          isNotification.has(name) ? this.#send({ name, args }) : this.#call(name, args);
      },
    });
    port.on('message', (message) => this.#onMessage(message as Message));
  }

  /** Lets the other side call this object's methods. To be called in the turn in which this was made. */
  serve(local: object): void {
    this.#local = local as Methods;
  }

  /** To be called when the other side is gone: the calls that wait for it reject. */
  close(reason: string): void {
    this.#closed ??= new EnvironmentError(reason);
    for (const { reject } of this.#calls.values()) reject(this.#closed);
    this.#calls.clear();
  }

  #call(name: string, args: readonly unknown[]): Promise<unknown> {
    if (this.#closed !== undefined) return Promise.reject(this.#closed);
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      this.#send({ name, args, id });
      this.#calls.set(id, { resolve, reject });
    });
  }

  #onMessage(message: Message): void {
    if ('name' in message) this.#answer(message);
    else this.#settle(message);
  }

  #answer({ name, args, id }: CallMessage): void {
    if (id === undefined) {
      this.#run(name, args);
      return;
    }
    // In this turn, so that the order is kept.
    const result = new Promise((resolve) => resolve(this.#run(name, args)));
    result
      .then((value) => this.#send({ id, value }))
      .catch((error: Error) => this.#send({ id, error: plainError(error) }));
  }

  #run(name: string, args: readonly unknown[]): unknown {
    const local = this.#local;
    if (local[name] === undefined) {
      throw new ApiMisuseError(`the other process calls "${name}", which is not known here`);
    }
    return local[name](...args);
  }

  #settle(message: ResultMessage | ErrorMessage): void {
    const call = this.#calls.get(message.id);
    this.#calls.delete(message.id);
    if ('error' in message) call?.reject(errorOf(message.error));
    else call?.resolve(message.value);
  }

  #send(message: Message): void {
    if (this.#closed !== undefined) return;
    // That the other side is going is told by its end.
    this.#port.send?.(message, () => {});
  }
}

/** An error as it is sent. Of its fields those are kept that are plain values. */
function plainError(error: Error): PlainError {
  const { message, stack } = error;
  const fields = Object.fromEntries(
    Object.entries(error).filter(([, value]) =>
      ['string', 'number', 'boolean'].includes(typeof value)
    )
  );
  return { message, stack, fields };
}

/** Errors of this library have the base class of them all: their `code` says which one it is. */
function errorOf({ message, stack, fields }: PlainError): Error {
  const { code } = fields;
  const isOurs = typeof code === 'string' && code.startsWith('ERR_PRESENCE_');
  const error = isOurs ? new PresenceError(code, message) : new Error(message);
  Object.assign(error, fields);
  if (stack !== undefined) error.stack = stack;
  return error;
}

type Methods = { readonly [name: string]: (...args: readonly unknown[]) => unknown };

interface Settlement {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

interface PlainError {
  readonly message: string;
  readonly stack: string | undefined;
  readonly fields: Readonly<Record<string, unknown>>;
}

/** A notification if it has no `id`. */
interface CallMessage {
  readonly name: string;
  readonly args: readonly unknown[];
  readonly id?: number;
}

interface ResultMessage {
  readonly id: number;
  readonly value: unknown;
}

interface ErrorMessage {
  readonly id: number;
  readonly error: PlainError;
}

type Message = CallMessage | ResultMessage | ErrorMessage;
