/**
 * What a run has found that must not be: the first violation ends the run.
 * @module
 */

export class Violations {
  readonly #texts: string[] = [];
  #onFirst: (() => void) | undefined;
  /** Resolves with the first violation. */
  readonly first: Promise<void> = new Promise((resolve) => {
    this.#onFirst = resolve;
  });

  get texts(): readonly string[] {
    return this.#texts;
  }

  add(text: string): void {
    this.#texts.push(text);
    this.#onFirst?.();
  }
}
