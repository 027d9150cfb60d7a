/**
 * What `runner.ts` needs of an implementation of TCP: the kernel's (`linux.ts`) or ours (`stack.ts`).
 * @module
 */
import type { Family } from '../../../src/base/address.ts';
import type { CallName, SubjectKind } from './script.ts';

/** The ends of a script's connections. Each run of a script has a far address of its own. */
export interface Place {
  readonly family: Family;
  readonly local: string;
  readonly localPort: number;
  readonly remote: string;
  readonly remotePort: number;
}

/** A packet that the subject sent, from its IP header on, and when. */
export interface Sent {
  readonly packet: Uint8Array;
  readonly atMs: number;
}

/**
 * What a call returns: a count, the name of an error, or `pending` if it has no result yet (nothing to accept, no error
 * to tell).
 */
export type Outcome = number | string | typeof PENDING;
export const PENDING: unique symbol = Symbol('pending');

/** One run of one script. */
export interface Subject {
  readonly kind: SubjectKind;
  readonly place: Place;
  /** How much later than its time a step may happen, in ms; 0: time is simulated, and exact. */
  readonly patienceMs: number;
  now(): number;
  /** By how many ms this machine was late since then, at most. */
  lagSince(atMs: number): number;
  /** Gives the subject a packet, from its IP header on. */
  inject(packet: Uint8Array): void;
  /** Returns the next packet, as soon as there is one; undefined if there is none at this time. */
  next(untilMs: number): Promise<Sent | undefined>;
  /** Returns at this time. */
  wait(untilMs: number): Promise<void>;
  call(name: CallName, argument: number, content: StreamContent): Outcome;
  /** Frees what the script has left open. */
  end(): void;
}

/** The bytes that a `write` writes, and those that a `read` must give. */
export interface StreamContent {
  /** The next bytes to write. */
  toWrite(length: number): Uint8Array;
  /** So many of them were taken. */
  wrote(length: number): void;
  /** Checks the bytes that were read. @throws if they are not those that were injected */
  read(bytes: Uint8Array): void;
}
