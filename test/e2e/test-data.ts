/**
 * The data that the protocol tests transfer.
 */
import { createCipheriv } from 'node:crypto';

/** Returns the same random bytes each time. */
export function testData(length: number = 6 << 20): Buffer {
  return createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16)).update(
    Buffer.alloc(length)
  );
}
