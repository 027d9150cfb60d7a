/**
 * Decides how long unsolicited replies of TCP and SCTP pass. A restarted translator does not know the
 * earlier requests. So a realm is *new* until its first permitted packet, and for `replyGraceMs` after it.
 * An unsolicited reply passes while one of its two realms is new. The client then sends again, which opens
 * the path.
 * @module
 */

export class ReplyGrace {
  readonly #graceMs: number;
  /**
   * The time in ms of each realm's first permitted packet since the realm was added to the plan, or the time
   * when the plan last lost a realm with paths to it.
   */
  readonly #firstPacketAtMs = new Map<number, number>();

  constructor(graceMs: number) {
    this.#graceMs = graceMs;
  }

  /** Returns whether the realm has sent no permitted packet yet, or sent the first one recently. */
  isNew(realm: number, nowMs: number): boolean {
    const firstPacketAtMs = this.#firstPacketAtMs.get(realm);
    return firstPacketAtMs === undefined || nowMs - firstPacketAtMs < this.#graceMs;
  }

  /** Notes a permitted packet of the realm. */
  noteTraffic(realm: number, nowMs: number): void {
    if (!this.#firstPacketAtMs.has(realm)) this.#firstPacketAtMs.set(realm, nowMs);
  }

  /** Treats now as the time of the realm's first packet, unless it has sent none yet, as a realm that is gone. */
  restart(realm: number, nowMs: number): void {
    if (this.#firstPacketAtMs.has(realm)) this.#firstPacketAtMs.set(realm, nowMs);
  }

  /** Forgets the realms that the plan has no longer: they are new when they come back. */
  keep(isThere: (realm: number) => boolean): void {
    for (const realm of this.#firstPacketAtMs.keys())
      if (!isThere(realm)) this.#firstPacketAtMs.delete(realm);
  }
  /** Forgets a realm that the plan has no longer: it is new when it comes back. */
  forget(realm: number): void {
    this.#firstPacketAtMs.delete(realm);
  }
}
