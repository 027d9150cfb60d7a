/**
 * Packs the text of a key into as many words as a record has for it, so that a key is compared where its record lies,
 * and so that the collector of garbage does not have to follow a text for each lease.
 *
 * A key of up to 32 characters of Latin-1 fits, unless it contains NUL, which fills the rest of the words. For any other
 * key the words only say that it does not fit.
 * @module
 */
export class PackedKey {
  readonly words: Int32Array = new Int32Array(KEY_WORDS);
  readonly #bytes: Uint8Array = new Uint8Array(this.words.buffer);
  /** Makes it hard to find keys that collide. */
  readonly #seed: number = (Math.random() * 2 ** 32) | 0;
  #text = '';
  #hash: number = mixed(this.#seed);
  #fits = true;

  get text(): string {
    return this.#text;
  }

  /** Its hash, in all bits of a signed word. */
  get hash(): number {
    return this.#hash;
  }

  get fits(): boolean {
    return this.#fits;
  }

  /** Takes another key: FNV-1a over its characters makes the hash. */
  pack(key: string): void {
    if (key === this.#text) return;
    const { words } = this;
    const bytes = this.#bytes;
    for (let i = 0; i < KEY_WORDS; i++) words[i] = 0;
    let hash = this.#seed;
    let fits = key.length <= KEY_BYTES;
    for (let i = 0; i < key.length; i++) {
      const code = key.charCodeAt(i);
      hash = Math.imul(hash ^ code, 0x01000193);
      if (code === 0 || code > 255) fits = false;
      if (fits) bytes[i] = code;
    }
    if (!fits) words.set(NO_FIT);
    this.#text = key;
    this.#hash = mixed(hash);
    this.#fits = fits;
  }
}

/** Returns whether the words from `at` on say that their key did not fit. */
export function isUnfit(words: Int32Array, at: number): boolean {
  return words[at] === 0 && words[at + 1] !== 0;
}

/** The final steps of MurmurHash3 spread a hash over all bits. */
function mixed(hash: number): number {
  let bits = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
  return bits ^ (bits >>> 16);
}

/** How many words of a record are those of its key. */
export const KEY_WORDS = 8;
export const KEY_BYTES: number = 4 * KEY_WORDS;
/** No key has these words, because NUL is only behind its characters. */
const NO_FIT: Int32Array = Int32Array.from({ length: KEY_WORDS }, (_, i) => (i === 0 ? 0 : -1));
