/**
 * How many addresses of a pool each of several parties may hold, so that none can starve another: numbers
 * only, neither addresses nor time.
 *
 * The *room* is what the pool has, less what is kept in reserve and less what is held by nobody in
 * particular. Half of the room is divided evenly among the parties and one that may come later: this is the
 * *share* of each. Another share can be set, up to an even part of the whole room. A party below its share
 * always finds an address. The rest of the room is *common*: it
 * goes to whoever asks first, but a party that is above its share by `x` takes one more only while `x` is
 * less than three times what is still common. A single party so takes three quarters of the common part at
 * most, and what it leaves is there for the next one (dynamic thresholds, Choudhury and Hahne 1998).
 *
 * When the parties, the reserve or the pool change, the shares are computed anew. A party that is above its
 * limit then keeps what it holds and gets nothing more. What such parties hold may leave less than the shares
 * of the others. The others then find addresses as long as the room has some, and never take from the reserve.
 *
 * The share is zero if the room has fewer addresses than there are parties and one that may come. Each party can
 * then have a single address as long as there is one.
 * @module
 */

export interface FairShareRules {
  /** Addresses of the pool. */
  readonly capacity: number;
  /** How many of them are kept free. */
  readonly reserve: number;
  /** The parties, and the most that each can need: none has a larger share than that. */
  readonly parties: ReadonlyMap<string, number>;
  /** This share replaces the computed one of each party, but it is never more than an even part of the room. */
  readonly share?: number | undefined;
}

export class FairShare {
  #rules: FairShareRules = { capacity: 0, reserve: 0, parties: new Map() };
  readonly #held = new Map<string, number>();
  /** Held by nobody in particular. */
  #others = 0;
  /** Held by all parties together. */
  #taken = 0;
  #room = 0;
  #share = 0;
  /** What a party may hold without a part of what is common: its share, or one where not all can have one. */
  #own = 0;
  /** The larger of what is its own and what is held, over all parties, and the share of the one to come. */
  #committed = 0;

  /** Takes other rules; what is held stays. Costs a walk over the parties, not over the addresses. */
  define(rules: FairShareRules): void {
    this.#rules = rules;
    this.#compute();
  }

  /** Addresses that the parties can hold together. */
  get room(): number {
    return this.#room;
  }

  /** What each party is sure of, unless it needs less. */
  get share(): number {
    return this.#share;
  }

  get parties(): Iterable<string> {
    return this.#rules.parties.keys();
  }

  heldBy(party: string): number {
    return this.#held.get(party) ?? 0;
  }

  /** Whether a party may take one more address. */
  mayTake(party: string): boolean {
    const held = this.heldBy(party);
    const own = this.#ownOf(party);
    if (held < own) return this.#taken < this.#room;
    const common = this.#room - this.#committed;
    const isParty = this.#rules.parties.has(party);
    return isParty && common > 0 && held - own < COMMON_FACTOR * common;
  }

  /** How many addresses a party could hold now if nobody else took any. */
  limitOf(party: string): number {
    const held = this.heldBy(party);
    if (!this.#rules.parties.has(party)) return held;
    const own = this.#ownOf(party);
    if (held < own && this.#committed > this.#room) {
      return Math.min(own, held + Math.max(0, this.#room - this.#taken));
    }
    const common = Math.max(0, this.#room - this.#committed);
    const above = Math.max(0, held - own);
    // It takes the next after y more as long as above + y < COMMON_FACTOR * (common - y).
    const more = Math.ceil((COMMON_FACTOR * common - above) / (COMMON_FACTOR + 1));
    return Math.max(held, own) + Math.min(common, Math.max(0, more));
  }

  /** Notes that one more address is held. @param party undefined: by nobody in particular */
  add(party: string | undefined): void {
    if (party === undefined) {
      this.#others++;
      this.#compute();
      return;
    }
    const held = this.heldBy(party);
    this.#held.set(party, held + 1);
    this.#taken++;
    if (held >= this.#ownOf(party)) this.#committed++;
  }

  /** Notes that one address less is held. */
  remove(party: string | undefined): void {
    if (party === undefined) {
      this.#others--;
      this.#compute();
      return;
    }
    const held = this.heldBy(party);
    if (held > 1) this.#held.set(party, held - 1);
    else this.#held.delete(party);
    this.#taken--;
    if (held > this.#ownOf(party)) this.#committed--;
  }

  /** A party that the rules do not have any more has nothing of its own. */
  #ownOf(party: string): number {
    return Math.min(this.#own, this.#rules.parties.get(party) ?? 0);
  }

  #compute(): void {
    const { capacity, reserve, parties, share } = this.#rules;
    this.#room = Math.max(0, capacity - reserve - this.#others);
    const even = Math.floor(this.#room / (parties.size + 1));
    // An address for everybody comes first, where there are enough.
    this.#share = Math.min(share ?? Math.max(1, Math.floor(even / 2)), even);
    this.#own = even === 0 ? 1 : this.#share;
    this.#committed = this.#share;
    for (const party of new Set([...parties.keys(), ...this.#held.keys()])) {
      this.#committed += Math.max(this.#ownOf(party), this.heldBy(party));
    }
  }
}

const COMMON_FACTOR = 3;
