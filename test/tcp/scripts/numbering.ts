/**
 * The relation between the numbers of a script and those of the wire: relative sequence numbers, names for
 * timestamps, the scale of the window.
 * @module
 */
import type { NumberText } from './script.ts';
import type { Segment } from './wire.ts';

export class Numbering {
  /** The number of the script's own SYN: sequence numbers pass 2^32 within the first window. */
  readonly remoteIsn: number = 0xffff_f000;
  /** Undefined before the subject's SYN; a segment before it counts from 0. */
  localIsn: number | undefined;
  readonly #names = new Map<string, number>();
  /** The subject's last timestamp. */
  #lastTimestamp = 0;
  #localScale: number | undefined;
  #remoteScale: number | undefined;

  /** Notes what the script has injected: the SYN's window scale. */
  noteInjected(flags: string, scale: number | undefined): void {
    if (flags.includes('S')) this.#remoteScale = scale;
  }

  /** Notes what the subject has sent: its ISN, its window scale, its timestamp. */
  noteSent({ flags, sequence, options }: Segment): void {
    if (flags.includes('S')) {
      this.localIsn ??= sequence;
      this.#localScale = undefined;
    }
    for (const option of options) {
      if (option.kind === 'TS') this.#lastTimestamp = option.value;
      if (option.kind === 'wscale') this.#localScale = option.value;
    }
  }

  /** The next SYN of the subject begins a new connection. */
  rebase(): void {
    this.localIsn = undefined;
  }

  /** The relative number of what the subject sends, near 0. */
  local(sequence: number): number {
    return (sequence - (this.localIsn ?? 0)) | 0;
  }

  /** The relative number of what the script sends, near 0. */
  remote(sequence: number): number {
    return (sequence - this.remoteIsn) | 0;
  }

  toLocal(relative: number): number {
    return (relative + (this.localIsn ?? 0)) >>> 0;
  }

  toRemote(relative: number): number {
    return (relative + this.remoteIsn) >>> 0;
  }

  /** The window in bytes that a segment of the subject announces. A SYN's is never scaled (RFC 7323 section 2.2). */
  windowOf({ flags, window }: Segment): number {
    const isScaled = this.#localScale !== undefined && this.#remoteScale !== undefined;
    return isScaled && !flags.includes('S') ? window * 2 ** this.#localScale! : window;
  }

  /** The number to inject; `*` stands for the subject's last timestamp. */
  valueOf(text: NumberText): number {
    if (text === '*') return this.#lastTimestamp;
    if (typeof text === 'number') return text;
    const value = this.#names.get(text);
    if (value === undefined) throw new Error(`${text} has no value yet`);
    return value;
  }

  /** Whether an expected number is this one. A name without a value gets it. */
  isEqual(text: NumberText, actual: number): boolean {
    if (text === '*') return true;
    if (typeof text === 'number') return text === actual;
    if (!this.#names.has(text)) this.#names.set(text, actual);
    return this.#names.get(text) === actual;
  }
}
