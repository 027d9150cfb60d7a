/**
 * What a program has written and TCP had no room for. It exists only while a socket has to wait, or sends several chunks
 * at once.
 * @module
 */
import type { TcpConnection } from '../../tcp/index.ts';

/** Is called when all is copied into the send buffer, or with the error. */
export type WriteCallback = (error?: Error | null) => void;

/** A chunk as `_writev` gets it. */
export interface WriteEntry {
  readonly chunk: Uint8Array;
}

export class PendingWrite {
  readonly callback: WriteCallback;
  readonly #chunks: readonly WriteEntry[];
  #index = 0;
  #offset: number;
  /** How many bytes of it the send buffer has taken. */
  taken: number;

  /** @param taken how many bytes of the first chunk the send buffer has taken already */
  constructor(chunks: readonly WriteEntry[], taken: number, callback: WriteCallback) {
    this.#chunks = chunks;
    this.#offset = taken;
    this.taken = taken;
    this.callback = callback;
  }

  /** Copies as much as there is room for. Returns whether all of it is copied. */
  copyTo(connection: TcpConnection): boolean {
    while (this.#index < this.#chunks.length) {
      const { chunk } = this.#chunks[this.#index]!;
      const taken = connection.write(chunk, this.#offset);
      this.taken += taken;
      this.#offset += taken;
      if (this.#offset < chunk.length) return false;
      this.#index++;
      this.#offset = 0;
    }
    return true;
  }
}
