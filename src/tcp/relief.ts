/**
 * Frees memory when the buffers of all connections have reached their bound.
 * @module
 */
import type { ControlBlock } from './control-block.ts';

/**
 * Discards what came out of order, which its senders keep (RFC 2018 section 8). Returns the connection that holds most
 * and has made no progress for 60 s; undefined if there is none.
 */
export function relieve(blocks: Iterable<ControlBlock>, now: number): ControlBlock | undefined {
  let stuck: ControlBlock | undefined;
  let most = 0;
  for (const block of blocks) {
    block.receive.discardOutOfOrder();
    const held = block.receive.charged + block.send.charged;
    const isStuck = now - Math.max(block.heardAt, block.sentAt) >= STUCK_MS;
    if (isStuck && held > most) {
      most = held;
      stuck = block;
    }
  }
  return stuck;
}

const STUCK_MS = 60_000;
