/**
 * The memory of this process when all garbage is collected. It needs `--expose-gc`.
 * @module
 */

/** In bytes. */
export interface Memory {
  readonly heap: number;
  readonly external: number;
  readonly resident: number;
}

export function collected(): Memory {
  // Twice: the first frees what the second can then collect.
  globalThis.gc!();
  globalThis.gc!();
  const { heapUsed, external, rss } = process.memoryUsage();
  return { heap: heapUsed, external, resident: rss };
}
