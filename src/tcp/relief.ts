/**
 * Frees memory when the buffers of all connections have reached their bound.
 * @module
 */
import type { ControlBlock } from './control-block.ts';
import type { BufferMemory } from './memory.ts';

/**
 * Returns the connection that holds most and has made no progress for 60 s; undefined if there is none.
 *
 * @param memory whose buffers alone count; undefined: those of all connections
 * @param isUsedUp discards what came out of order, which its senders keep (RFC 2018 section 8)
 */
export function relieve(
  blocks: Iterable<ControlBlock>,
  memory: BufferMemory | undefined,
  now: number,
  isUsedUp: boolean
): ControlBlock | undefined {
  let stuck: ControlBlock | undefined;
  let most = 0;
  for (const block of blocks) {
    if (memory !== undefined && block.memory !== memory) continue;
    if (isUsedUp) block.receive.discardOutOfOrder();
    const held = block.receive.charged + block.send.charged;
    const isStuck = now - block.progressAt >= STUCK_MS;
    if (isStuck && held > most) {
      most = held;
      stuck = block;
    }
  }
  return stuck;
}

const STUCK_MS = 60_000;
