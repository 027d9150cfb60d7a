/**
 * Finds the faulty line in an inconsistent log.
 *
 * A changed line is detected by the next one, whose `prev` is not its hash. The same happens if that `prev` itself was
 * changed. The line after it decides: a changed `prev` also changes the hash of its own line.
 * @module
 */
import { type AuditHead, BEGINNING, hashOf, type Link, parseLink } from './line.ts';

/**
 * - `changed`: the line has other bytes than were written, or was inserted
 * - `missing`: lines before this one were removed or moved
 * - `malformed`: the line is not one of an audit log
 * - `truncated`: the end of the log is missing
 */
export type AuditFault = 'changed' | 'missing' | 'malformed' | 'truncated';

export interface ChainFault {
  /** The number of the line, from 1, in the checked text. */
  readonly line: number;
  readonly fault: AuditFault;
  readonly message: string;
}

/** Checks the lines of a log. Call `push` with each line in order until it returns a fault, then `end`. */
export class ChainCheck {
  readonly #expected: AuditHead | undefined;
  #lines = 0;
  /** Number and hash of the last line; undefined before the first one if that is accepted as it is. */
  #head: AuditHead | undefined;
  /** The hash of the line before the last one. */
  #hashBefore: string | undefined;
  /** Whether the `prev` of the last line does not match; the next line decides which of the two is faulty. */
  #isInDoubt = false;

  /**
   * @param head of the line before the first one: `BEGINNING` for a complete log, undefined for the end of one
   * @param expected a head that the log had before
   */
  constructor(head: AuditHead | undefined, expected?: AuditHead) {
    this.#head = head;
    this.#expected = expected;
  }

  get lines(): number {
    return this.#lines;
  }

  get head(): AuditHead {
    return this.#head ?? BEGINNING;
  }

  push(bytes: Buffer): ChainFault | undefined {
    const number = ++this.#lines;
    const link = parseLink(bytes);
    if (this.#isInDoubt) {
      return changed(link?.prev === this.head.hash ? number - 2 : number - 1);
    }
    if (link === undefined) {
      return {
        line: number,
        fault: 'malformed',
        message: `line ${number} is not one of an audit log`,
      };
    }
    const hash = hashOf(bytes);
    const fault = this.#checkLink(number, link, hash);
    if (fault !== undefined) return fault;
    this.#hashBefore = this.#head?.hash;
    this.#head = { seq: link.seq, hash };
    return this.#checkExpected(number);
  }

  /** Ends the check. @param tornBytes how many bytes follow the last line feed */
  end(tornBytes = 0): ChainFault | undefined {
    if (this.#isInDoubt) return changed(this.#lines - 1);
    const line = this.#lines + 1;
    if (tornBytes > 0) {
      return { line, fault: 'truncated', message: `line ${line} has no end` };
    }
    const { seq } = this.head;
    if (this.#expected !== undefined && seq < this.#expected.seq) {
      const message = `it ends with line ${seq}, and once had line ${this.#expected.seq}`;
      return { line, fault: 'truncated', message };
    }
    return undefined;
  }

  #checkLink(number: number, { seq, prev }: Link, hash: string): ChainFault | undefined {
    if (this.#head === undefined) return undefined;
    const { seq: lastSeq, hash: lastHash } = this.#head;
    if (seq === lastSeq + 1) {
      if (prev === lastHash) return undefined;
      if (number === 1) return changed(number);
      this.#isInDoubt = true;
      return undefined;
    }
    if (prev === lastHash) return changed(number);
    if (seq === lastSeq && prev === this.#hashBefore) {
      // Two lines have the same place. The first of them was inserted, unless both are equal.
      return changed(hash === lastHash ? number : number - 1);
    }
    if (seq < lastSeq + 1) return changed(number);
    const message = `line ${number} has number ${seq} where ${lastSeq + 1} is missing`;
    return { line: number, fault: 'missing', message };
  }

  #checkExpected(number: number): ChainFault | undefined {
    const { seq, hash } = this.head;
    const isOther = seq === this.#expected?.seq && hash !== this.#expected.hash;
    return isOther ? changed(number) : undefined;
  }
}

function changed(line: number): ChainFault {
  return { line, fault: 'changed', message: `line ${line} is not the one that was written there` };
}
