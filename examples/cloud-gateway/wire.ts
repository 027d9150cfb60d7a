/**
 * Calls between the controller and a member in another process, over Node's channel between parent and
 * child. Both run the same program, so what passes is checked by its types alone. Order is kept: what
 * was told first is done first, up to where it first has to wait.
 * @module
 */
import { EnvironmentError } from 'virtual-presence';

/** What one side lets the other one call. */
export type Calls = { readonly [name: string]: (...args: never[]) => unknown };

/** The part of `process` and of `ChildProcess` that is needed. */
export interface WirePort {
  send?(message: unknown, callback?: (error: Error | null) => void): boolean;
  on(event: 'message', listener: (message: unknown) => void): unknown;
}

export class Wire<Remote extends Calls> {
  readonly #port: WirePort;
  readonly #waiting = new Map<number, PromiseWithResolvers>();
  #nextId = 1;
  #closed: Error | undefined;

  /** @param local what the other side may call */
  constructor(port: WirePort, local: Calls) {
    this.#port = port;
    port.on('message', (message) => this.#onMessage(message as Message, local));
  }

  /** Calls without waiting for an answer; of one that is closed, nothing comes. */
  tell<K extends keyof Remote & string>(name: K, ...args: Parameters<Remote[K]>): void {
    this.#send({ name, args });
  }

  /** @throws {EnvironmentError} with what the other side threw, or if it is gone. */
  ask<K extends keyof Remote & string>(
    name: K,
    ...args: Parameters<Remote[K]>
  ): Promise<Awaited<ReturnType<Remote[K]>>> {
    return new Promise((resolve, reject) => {
      if (this.#closed !== undefined) {
        reject(this.#closed);
        return;
      }
      const id = this.#nextId++;
      this.#waiting.set(id, { resolve: resolve as (value: unknown) => void, reject });
      this.#send({ name, args, id });
    });
  }

  /** To be called when the other side is gone: what waits for it fails. */
  close(reason: string): void {
    this.#closed ??= new EnvironmentError(reason);
    for (const { reject } of this.#waiting.values()) reject(this.#closed);
    this.#waiting.clear();
  }

  #onMessage(message: Message, local: Calls): void {
    if ('name' in message) {
      const { name, args, id } = message;
      const call = local[name] as (...args: readonly unknown[]) => unknown;
      if (id === undefined) {
        call(...args);
        return;
      }
      // In this turn, so that the order is kept.
      const result = new Promise((resolve) => resolve(call(...args)));
      result.then(
        (value) => this.#send({ id, value }),
        (error: Error) => this.#send({ id, error: error.message })
      );
      return;
    }
    const waiting = this.#waiting.get(message.id);
    this.#waiting.delete(message.id);
    if ('error' in message) waiting?.reject(new EnvironmentError(message.error));
    else waiting?.resolve(message.value);
  }

  #send(message: Message): void {
    if (this.#closed !== undefined) return;
    // That the other side is going is told by its end.
    this.#port.send?.(message, () => {});
  }
}

interface PromiseWithResolvers {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

type Message =
  | { readonly name: string; readonly args: readonly unknown[]; readonly id?: number }
  | { readonly id: number; readonly value: unknown }
  | { readonly id: number; readonly error: string };
