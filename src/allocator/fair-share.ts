/**
 * Decides how many addresses of a pool each party may hold, so that no party can starve another. It works on numbers,
 * and knows neither addresses nor time.
 *
 * The *room* is the size of the pool without the reserve and without the addresses that belong to no party. Half of
 * the room is divided evenly among the parties and one more that may come later: this is the *share* of each. Another
 * share can be set, up to an even part of the whole room. A party below its share always finds an address. The rest
 * of the room is *common*. It goes to the party that asks first, but a party that is above its share by `x` takes one
 * more only while `x` is less than three times what is still common. A single party then takes at most three quarters
 * of the common part, and the next party finds the rest (dynamic thresholds, Choudhury and Hahne 1998).
 *
 * The shares are computed again when the parties, the reserve or the pool change. A party that is above its limit
 * then keeps what it holds and gets nothing more. What such parties hold may leave less than the shares of the others.
 * The others then find addresses as long as the room has free ones, and never take from the reserve.
 *
 * The share is zero if the room has fewer addresses than there are parties and one more. Each party can then have a
 * single address as long as there is one.
 * @module
 */

export interface FairShareRules {
  /** How many addresses the pool has. */
  readonly capacity: number;
  /** How many of them are kept free. */
  readonly reserve: number;
  /**
   * The parties, and the most addresses that each can need. No party has a larger share than that. The map may change
   * later, if the rules are then defined again before the next question.
   */
  readonly parties: ReadonlyMap<string, number>;
  /** Replaces the computed share of each party; an even part of the room is the most that takes effect. */
  readonly share?: number | undefined;
}

export class FairShare {
  #rules: FairShareRules = { capacity: 0, reserve: 0, parties: new Map() };
  readonly #held = new Map<string, number>();
  /** Addresses that belong to no party. */
  #others = 0;
  /** Addresses that all parties hold together. */
  #taken = 0;
  #room = 0;
  #share = 0;
  /** How many addresses a party may hold without the common part: its share, or one if the share is zero. */
  #own = 0;
  /**
   * The sum over all parties of the larger of what is its own and what it holds, and one share for a later party.
   * Undefined if it is to be computed again, which takes time for each party.
   */
  #sum: number | undefined;

  /** Sets other rules; what is held stays. It takes constant time, and the next question time for each party. */
  define(rules: FairShareRules): void {
    this.#rules = rules;
    this.#divide();
  }

  /** Addresses that the parties can hold together. */
  get room(): number {
    return this.#room;
  }

  /** How many addresses each party is sure of, unless it needs less. */
  get share(): number {
    return this.#share;
  }

  /** How many addresses all parties hold together. */
  get taken(): number {
    return this.#taken;
  }

  get parties(): Iterable<string> {
    return this.#rules.parties.keys();
  }

  heldBy(party: string): number {
    return this.#held.get(party) ?? 0;
  }

  /** Returns whether a party may take one more address. */
  mayTake(party: string): boolean {
    const held = this.heldBy(party);
    const own = this.#ownOf(party);
    if (held < own) return this.#taken < this.#room;
    const common = this.#room - this.#committed();
    const isParty = this.#rules.parties.has(party);
    return isParty && common > 0 && held - own < COMMON_FACTOR * common;
  }

  /** Returns how many addresses a party could hold now if no other party took any. */
  limitOf(party: string): number {
    const held = this.heldBy(party);
    if (!this.#rules.parties.has(party)) return held;
    const own = this.#ownOf(party);
    if (held < own && this.#committed() > this.#room) {
      return Math.min(own, held + Math.max(0, this.#room - this.#taken));
    }
    const common = Math.max(0, this.#room - this.#committed());
    const above = Math.max(0, held - own);
    // It takes the next after y more as long as above + y < COMMON_FACTOR * (common - y).
    const more = Math.ceil((COMMON_FACTOR * common - above) / (COMMON_FACTOR + 1));
    return Math.max(held, own) + Math.min(common, Math.max(0, more));
  }

  /** Notes that one more address is held. @param party undefined if it belongs to no party */
  add(party: string | undefined): void {
    if (party === undefined) {
      this.#others++;
      this.#divide();
      return;
    }
    const held = this.heldBy(party);
    this.#held.set(party, held + 1);
    this.#taken++;
    if (this.#sum !== undefined && held >= this.#ownOf(party)) this.#sum++;
  }

  /** Notes that one address fewer is held. */
  remove(party: string | undefined): void {
    if (party === undefined) {
      this.#others--;
      this.#divide();
      return;
    }
    const held = this.heldBy(party);
    if (held > 1) this.#held.set(party, held - 1);
    else this.#held.delete(party);
    this.#taken--;
    if (this.#sum !== undefined && held > this.#ownOf(party)) this.#sum--;
  }

  /** Returns what a party has of its own: nothing if the rules do not name it any more. */
  #ownOf(party: string): number {
    return Math.min(this.#own, this.#rules.parties.get(party) ?? 0);
  }

  #divide(): void {
    const { capacity, reserve, parties, share } = this.#rules;
    this.#room = Math.max(0, capacity - reserve - this.#others);
    const even = Math.floor(this.#room / (parties.size + 1));
    // Where there are enough addresses, each party gets one before shares are halved.
    this.#share = Math.min(share ?? Math.max(1, Math.floor(even / 2)), even);
    this.#own = even === 0 ? 1 : this.#share;
    this.#sum = undefined;
  }

  #committed(): number {
    if (this.#sum !== undefined) return this.#sum;
    let sum = this.#share;
    const { parties } = this.#rules;
    for (const party of parties.keys()) sum += Math.max(this.#ownOf(party), this.heldBy(party));
    for (const [party, held] of this.#held) if (!parties.has(party)) sum += held;
    this.#sum = sum;
    return sum;
  }
}

const COMMON_FACTOR = 3;
