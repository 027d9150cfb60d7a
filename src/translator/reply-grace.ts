/**
 * For how long replies of TCP and SCTP pass although nobody is known to have asked for them. Who spoke before
 * a start is not known after it, so a realm is *new* until its first packet that may pass, and for a while
 * from then on. A reply passes unasked while one of its two realms is new: the client then speaks again, or
 * answers what it gets, and its path is open from then on.
 * @module
 */

export class ReplyGrace {
  readonly #graceMs: number;
  /**
   * For each realm, when its first packet that may pass came, since the realm has been in the plan, or since a
   * realm that it had paths to has gone. In ms.
   */
  readonly #firstPacketAtMs = new Map<number, number>();

  constructor(graceMs: number) {
    this.#graceMs = graceMs;
  }

  /** Whether the realm was not heard yet, or lately for the first time. */
  isNew(realm: number, nowMs: number): boolean {
    const firstPacketAtMs = this.#firstPacketAtMs.get(realm);
    return firstPacketAtMs === undefined || nowMs - firstPacketAtMs < this.#graceMs;
  }

  /** Notes that a packet of the realm has come which may pass. */
  noteTraffic(realm: number, nowMs: number): void {
    if (!this.#firstPacketAtMs.has(realm)) this.#firstPacketAtMs.set(realm, nowMs);
  }

  /** Treats a realm that was heard as if it were heard for the first time now. */
  restart(realm: number, nowMs: number): void {
    if (this.#firstPacketAtMs.has(realm)) this.#firstPacketAtMs.set(realm, nowMs);
  }

  /** Forgets the realms that are not there any more: they are new when they come back. */
  keep(isThere: (realm: number) => boolean): void {
    for (const realm of this.#firstPacketAtMs.keys())
      if (!isThere(realm)) this.#firstPacketAtMs.delete(realm);
  }
}
