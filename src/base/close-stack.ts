/**
 * Closes what was opened, the last first. It serves both a regular end and a start that has failed half-way.
 * @module
 */

export class CloseStack {
  readonly #closers: (() => unknown)[] = [];
  #closing: Promise<void> | undefined;

  /** Whether `close` was called. */
  get isClosed(): boolean {
    return this.#closing !== undefined;
  }

  /** Adds a function that `close` calls before those that were added earlier. */
  add(close: () => unknown): void {
    this.#closers.push(close);
  }

  /**
   * Calls all functions that were added, one after the other, even if one of them fails. A second call returns the same
   * promise.
   *
   * @throws the error of the first function that failed.
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
