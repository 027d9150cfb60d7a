/**
 * Check 5 of the translator's contract for TCP, SCTP and ICMP errors: which paths packets have opened, and
 * when each realm sent its first packet.
 * @module
 */
import { isSamePath, type Path, type Tables } from './tables.ts';

/** A path, and where it is entered. */
interface Opened {
  readonly realm: string;
  readonly source: string;
  readonly destination: string;
  readonly path: Path;
}

export class Paths {
  readonly #opened = new Map<string, Opened>();
  readonly #heardAt = new Map<string, number>();
  readonly #graceMs: number;

  constructor(graceMs: number) {
    this.#graceMs = graceMs;
  }

  /** Whether a packet has opened the path from one address of the realm to another. */
  has(realm: string, source: string, destination: string): boolean {
    return this.#opened.has(`${realm} ${source} ${destination}`);
  }

  /** Notes the path of a packet, which a request opens, and the reply to one. */
  open(opened: Opened): void {
    const { realm, source, destination } = opened;
    this.#opened.set(`${realm} ${source} ${destination}`, opened);
  }

  /** Notes the time of the first permitted packet of the realm. */
  hear(realm: string, now: number): void {
    if (!this.#heardAt.has(realm)) this.#heardAt.set(realm, now);
  }

  /** Returns whether unsolicited replies between the realms pass. */
  isGrace(realm: string, other: string, now: number): boolean {
    return [realm, other].some((each) => {
      const heardAt = this.#heardAt.get(each);
      return heardAt === undefined || now - heardAt < this.#graceMs;
    });
  }

  /** Forgets the paths and realms that a new plan does not have; the grace of realms with paths to these starts again. */
  keep(tables: Tables, now: number): void {
    for (const [key, { realm, source, destination, path }] of this.#opened) {
      if (!tables.hasRealm(realm) || !isSamePath(path, tables.path(realm, source, destination))) {
        this.#opened.delete(key);
        if (!tables.hasRealm(realm)) this.#restart(path.egress, now);
        if (!tables.hasRealm(path.egress)) this.#restart(realm, now);
      }
    }
    for (const realm of this.#heardAt.keys()) {
      if (!tables.hasRealm(realm)) this.#heardAt.delete(realm);
    }
  }

  #restart(realm: string, now: number): void {
    if (this.#heardAt.has(realm)) this.#heardAt.set(realm, now);
  }
}
