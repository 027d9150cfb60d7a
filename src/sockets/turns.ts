/**
 * Decides when a stack delivers events and sends packets. Neither happens within `read` or `write` of the device: a
 * listener of the program could throw into the tunnel, or change the buffer that is being written.
 *
 * 1. What happens in one callback of the event loop, for example the arrival of several packets, ends with one tick
 *    (`process.nextTick`). It delivers the events.
 * 2. Then packets are sent, so that what the listeners have written leaves together with the acknowledgements. If
 *    listeners ran, one more tick lets their streams go on first.
 * 3. Packets are sent in this way once in a turn of the event loop. What comes later in the same turn waits for
 *    `setImmediate`, behind the packets that have arrived meanwhile: one acknowledgement then stands for all of them.
 * @module
 */

/** What is done in a turn. */
export interface TurnHooks {
  /** Begins a tick, in which the time stands still no longer. Returns whether it has run code of the program. */
  deliver(): boolean;
  /** Whether packets can be sent now. */
  canSend(): boolean;
  /** Sends packets, perhaps not all. */
  send(): void;
  /** Called when all else is done: sets the timer. */
  settle(): void;
}

export class Turns {
  readonly #hooks: TurnHooks;
  #isTickDue = false;
  /** Whether packets were sent in this turn; an immediate ends that. */
  #hasSent = false;
  #isSendDue = false;

  constructor(hooks: TurnHooks) {
    this.#hooks = hooks;
  }

  /** Events wait, or packets can be sent, or a deadline may have changed. */
  wake(): void {
    if (this.#isTickDue) return;
    this.#isTickDue = true;
    process.nextTick(this.#tick);
  }

  readonly #tick = (): void => {
    this.#isTickDue = false;
    let hasRun = true;
    try {
      hasRun = this.#hooks.deliver();
    } finally {
      // A listener that throws makes an uncaught exception of the process, and the stack goes on if the process does.
      if (!this.#isSendDue) {
        if (!hasRun) this.#sendIfFirst();
        else {
          this.#isSendDue = true;
          process.nextTick(this.#sendDue);
        }
      }
    }
  };

  readonly #sendDue = (): void => {
    this.#isSendDue = false;
    this.#sendIfFirst();
  };

  #sendIfFirst(): void {
    if (!this.#hasSent && this.#hooks.canSend()) this.#send();
    else this.#hooks.settle();
  }

  #send(): void {
    this.#hasSent = true;
    setImmediate(this.#nextTurn);
    try {
      this.#hooks.send();
    } finally {
      this.#hooks.settle();
    }
  }

  readonly #nextTurn = (): void => {
    this.#hasSent = false;
    if (this.#hooks.canSend()) this.#send();
  };
}
