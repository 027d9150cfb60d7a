/**
 * Chooses the local port of an outgoing connection
 * ([RFC 6056 section 3.3.1](https://www.rfc-editor.org/rfc/rfc6056#section-3.3.1), algorithm 1): a random port, or the
 * next one that is free for this destination. A port that cannot be guessed is one more thing that a blind attacker
 * has to hit.
 * @module
 */

/** The range of ephemeral ports, as Linux has it by default. */
export const FIRST_EPHEMERAL_PORT = 32_768;
export const LAST_EPHEMERAL_PORT = 60_999;

/**
 * Returns a port of the ephemeral range that is not used, -1 if all are.
 *
 * @param random gives an unsigned 32-bit integer that cannot be predicted
 * @param isUsed says whether the port cannot be taken for the destination in question; asked once for each port
 */
export function pickPort(random: () => number, isUsed: (port: number) => boolean): number {
  const start = (random() >>> 0) % COUNT;
  for (let i = 0; i < COUNT; i++) {
    const port = FIRST_EPHEMERAL_PORT + ((start + i) % COUNT);
    if (!isUsed(port)) return port;
  }
  return -1;
}

/** Returns an unsigned 32-bit integer of a source of random bytes. */
export function randomWord(random: (length: number) => Uint8Array): number {
  const [a, b, c, d] = random(4);
  return ((a! << 24) | (b! << 16) | (c! << 8) | d!) >>> 0;
}

const COUNT = LAST_EPHEMERAL_PORT - FIRST_EPHEMERAL_PORT + 1;
