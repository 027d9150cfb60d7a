/**
 * An event emitter whose owner continues when a listener throws, since listeners are called in the middle of the
 * owner's work.
 * @module
 */
import { EventEmitter } from 'eventemitter3';

type Names<Events extends object> = EventEmitter.EventNames<Events>;
type Listener<Events extends object, Name extends Names<Events>> = EventEmitter.EventListener<
  Events,
  Name
>;
type AnyListener = (...args: unknown[]) => unknown;

/**
 * Calls all listeners of an event, even if one of them throws. Its error becomes an uncaught exception of the process,
 * in a later microtask, as with an `EventTarget` of Node.
 */
export class Emitter<Events extends object> extends EventEmitter<Events> {
  /** Keyed by listener: the function that is called in its place. */
  readonly #guarded = new WeakMap<AnyListener, AnyListener>();

  override on<Name extends Names<Events>>(
    event: Name,
    listener: Listener<Events, Name>,
    context?: unknown
  ): this {
    return super.on(event, this.#guard(listener), context);
  }

  override addListener<Name extends Names<Events>>(
    event: Name,
    listener: Listener<Events, Name>,
    context?: unknown
  ): this {
    return this.on(event, listener, context);
  }

  override once<Name extends Names<Events>>(
    event: Name,
    listener: Listener<Events, Name>,
    context?: unknown
  ): this {
    return super.once(event, this.#guard(listener), context);
  }

  override off<Name extends Names<Events>>(
    event: Name,
    listener?: Listener<Events, Name>,
    context?: unknown,
    once?: boolean
  ): this {
    return super.off(event, listener && this.#guard(listener), context, once);
  }

  override removeListener<Name extends Names<Events>>(
    event: Name,
    listener?: Listener<Events, Name>,
    context?: unknown,
    once?: boolean
  ): this {
    return this.off(event, listener, context, once);
  }

  #guard<Fn>(listener: Fn): Fn {
    // The base class refuses what is not a function.
    if (typeof listener !== 'function') return listener;
    const plain = listener as unknown as AnyListener;
    let guarded = this.#guarded.get(plain);
    if (guarded === undefined) {
      guarded = function guard(this: unknown, ...args: unknown[]): void {
        try {
          plain.apply(this, args);
        } catch (error) {
          throwToProcess(error);
        }
      };
      this.#guarded.set(plain, guarded);
    }
    return guarded as unknown as Fn;
  }
}

/** Throws outside of all callers, since none of them can handle the error. */
export function throwToProcess(error: unknown): void {
  queueMicrotask(() => {
    throw error;
  });
}
