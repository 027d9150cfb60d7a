/**
 * Remote procedure calls between two processes, over Node's channel between parent and child. Each side offers an
 * object; the other side calls the object's methods. Arguments and results are structured clones. Nothing checks them
 * at run time, because both sides run the same version of this library.
 *
 * Calls keep their order: a call begins in the turn of the event loop in which it arrives.
 * @module
 */
import { ApiMisuseError, EnvironmentError, PresenceError } from '../errors.ts';

/**
 * An object as another process sees it. A method without a result is a notification, whose outcome the caller does not
 * learn. Every other method returns a promise.
 */
export type Remote<T> = {
  [K in keyof T]: T[K] extends (...args: infer A) => infer R
    ? (...args: A) => [R] extends [NoResult] ? void : Promise<Awaited<R>>
    : never;
};

type NoResult = ReturnType<() => void>;

/** The names of all methods of an object that have no result, as a value, because types do not exist at run time. */
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

/** The part of `process` and of `ChildProcess` that `Rpc` uses. */
export interface RpcPort {
  send?(message: unknown, callback?: (error: Error | null) => void): boolean;
  on(event: 'message', listener: (message: unknown) => void): unknown;
}

/** One side of the channel. */
export class Rpc<T extends object> {
  /**
   * The object of the other side. A call rejects with the error that the other side threw, with its code, message and
   * fields, but not with its class. After `close` a call rejects with an `EnvironmentError`, and a notification is
   * dropped. A notification throws if its arguments cannot be cloned.
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
        // A promise that resolves with this object reads `then`.
        if (typeof name === 'symbol' || name === 'then') return undefined;
        return (...args: unknown[]) =>
          isNotification.has(name) ? this.#send({ name, args }) : this.#call(name, args);
      },
    });
    port.on('message', (message) => this.#onMessage(message as Message));
  }

  /** Lets the other side call this object's methods. Must be called in the turn in which this `Rpc` was constructed. */
  serve(local: object): void {
    this.#local = local as Methods;
  }

  /** Rejects the calls in progress and all later ones. Must be called when the other side has ended. */
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
    // The method is called in this turn, so that the order is kept.
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
    // An error is ignored here: if the other side has ended, `close` is called.
    this.#port.send?.(message, () => {});
  }
}

/** Returns an error as it is sent, with those of its fields that are plain values. */
function plainError(error: Error): PlainError {
  const { message, stack } = error;
  const fields = Object.fromEntries(
    Object.entries(error).filter(([, value]) =>
      ['string', 'number', 'boolean'].includes(typeof value)
    )
  );
  return { message, stack, fields };
}

/** Returns the error that was sent. An error of this library becomes a `PresenceError` with the same `code`. */
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
