/**
 * Ends what was opened, the last first, whether it is all there or a start has failed half-way.
 * @module
 */

export class CloseStack {
  readonly #closers: (() => unknown)[] = [];
  #closing: Promise<void> | undefined;

  /** Whether `close` was called. */
  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  /** Is called by `close`, before what was added earlier. */
  add(close: () => unknown): void {
    this.#closers.push(close);
  }

  /**
   * Calls all that was added, one after the other. One that fails does not keep the others. A second call returns
   * the same promise.
   *
   * @throws what the first one has thrown that failed.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    const failures: unknown[] = [];
    for (let close = this.#closers.pop(); close !== undefined; close = this.#closers.pop()) {
      try {
        await close();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }
}
