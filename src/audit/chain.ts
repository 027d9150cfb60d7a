/**
 * Finds the line that is at fault where a log does not hang together.
 *
 * A changed line shows only in the next one, whose `prev` is then not its hash; but that is so too if
 * the `prev` was changed. The line after that decides: who changed a `prev` has changed its line, which
 * the following line does not confirm.
 * @module
 */
import { type AuditHead, BEGINNING, hashOf, type Link, parseLink } from './line.ts';

/**
 * `changed`: other bytes than were written, or a line that was put in. `missing`: lines were taken out,
 * or others moved in front of them. `malformed`: no line of an audit log. `truncated`: the end is
 * missing.
 */
export type AuditFault = 'changed' | 'missing' | 'malformed' | 'truncated';

export interface ChainFault {
  /** Counted from 1 in what was checked. */
  readonly line: number;
  readonly fault: AuditFault;
  readonly message: string;
}

/** Give it every line in order, until it answers with a fault, then `end`. Keeps no more than a line's hash or two. */
export class ChainCheck {
  readonly #expected: AuditHead | undefined;
  #lines = 0;
  /** Of the last line; undefined if what comes first is to be taken as it is. */
  #head: AuditHead | undefined;
  /** Hash of the line before that. */
  #hashBefore: string | undefined;
  /** The last line does not follow from the one before; the next one tells which of them is at fault. */
  #isInDoubt = false;

  /**
   * @param head of the line before the first: `BEGINNING` for a whole log, undefined for the end of one
   * @param expected what the log was seen to have
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
        message: `line ${number} is none of an audit log`,
      };
    }
    const hash = hashOf(bytes);
    const fault = this.#checkLink(number, link, hash);
    if (fault !== undefined) return fault;
    this.#hashBefore = this.#head?.hash;
    this.#head = { seq: link.seq, hash };
    return this.#checkExpected(number);
  }

  /** @param tornBytes how many bytes follow the last line feed */
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
      // Two lines in one place: the former is the one too many, unless they are the same.
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
