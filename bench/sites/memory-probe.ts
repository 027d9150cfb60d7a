/**
 * Is loaded into a gateway beside its program (`--expose-gc --import`): collects garbage on SIGUSR2 and
 * reports the used memory. The program itself is the same as without it.
 * @module
 */

/** A line of standard error. */
export interface MemoryLine {
  readonly afterGarbageCollection: NodeJS.MemoryUsage;
}

process.on('SIGUSR2', () => {
  // Twice: the first frees what the second can then collect.
  globalThis.gc!();
  globalThis.gc!();
  const line: MemoryLine = { afterGarbageCollection: process.memoryUsage() };
  process.stderr.write(`${JSON.stringify(line)}\n`);
});
