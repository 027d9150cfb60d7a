/**
 * Which lane a flow takes. Flows are told apart by a hash, in buckets; a bucket stays on its lane while
 * packets come, so that they stay in order, and goes to the lane with the fewest when it has been quiet.
 * When lanes come and go, no more buckets move than balance needs: those few flows may see packets
 * overtake others, once.
 * @module
 */

export class FlowSpread {
  #lanes = 1;
  readonly #laneOf = new Uint8Array(BUCKETS);
  /** When the last packet of the bucket came, in ms. */
  readonly #seenMs = new Float64Array(BUCKETS).fill(Number.NEGATIVE_INFINITY);
  readonly #load = new Int32Array(256);

  /** Lanes are numbered from 0. */
  get lanes(): number {
    return this.#lanes;
  }

  /** Returns the lane of a packet that is sent now. */
  laneOf(hash: number, nowMs: number): number {
    const bucket = hash & (BUCKETS - 1);
    if (nowMs - this.#seenMs[bucket]! > QUIET_MS) this.#laneOf[bucket] = this.#emptiest(nowMs);
    this.#seenMs[bucket] = nowMs;
    return this.#laneOf[bucket]!;
  }

  /** How many flows, as far as the buckets tell them apart, have sent something lately. */
  active(nowMs: number): number {
    let count = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (nowMs - this.#seenMs[bucket]! <= QUIET_MS) count++;
    }
    return count;
  }

  /** Lanes from 0 to `lanes - 1` are there from now on, and no others. */
  setLanes(lanes: number, nowMs: number): void {
    const load = this.#countLoad(nowMs);
    this.#lanes = lanes;
    let share = 0;
    for (let lane = 0; lane < 256; lane++) share += load[lane]!;
    share = Math.ceil(share / lanes);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const from = this.#laneOf[bucket]!;
      if (from < lanes && load[from]! <= share) continue;
      if (nowMs - this.#seenMs[bucket]! > QUIET_MS) continue;
      const to = emptiest(load, lanes);
      load[from]!--;
      load[to]!++;
      this.#laneOf[bucket] = to;
    }
  }

  /** The lane is gone; the last one has its number from now on. */
  removeLane(gone: number, nowMs: number): void {
    const last = this.#lanes - 1;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (this.#laneOf[bucket] === gone) this.#laneOf[bucket] = last;
      else if (this.#laneOf[bucket] === last) this.#laneOf[bucket] = gone;
    }
    this.setLanes(last, nowMs);
  }

  #emptiest(nowMs: number): number {
    return this.#lanes === 1 ? 0 : emptiest(this.#countLoad(nowMs), this.#lanes);
  }

  #countLoad(nowMs: number): Int32Array {
    const load = this.#load.fill(0);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (nowMs - this.#seenMs[bucket]! <= QUIET_MS) load[this.#laneOf[bucket]!]!++;
    }
    return load;
  }
}

function emptiest(load: Int32Array, lanes: number): number {
  let least = 0;
  for (let lane = 1; lane < lanes; lane++) {
    if (load[lane]! < load[least]!) least = lane;
  }
  return least;
}

/** A power of two. */
const BUCKETS = 256;
/** After so long nothing of a flow is on its way any more, so that it may take another lane. */
const QUIET_MS = 1000;
