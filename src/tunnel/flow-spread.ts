/**
 * Which lane a flow takes. Flows are told apart by a hash, in buckets; a bucket stays on its lane while
 * packets come, so that they stay in order, and goes to the lane with the fewest when it has been quiet.
 * When lanes come and go, and when a lane has to carry several flows that send much while another has
 * none, no more buckets move than balance needs: those few flows may see packets overtake others, once.
 * @module
 */

export class FlowSpread {
  #lanes = 1;
  readonly #laneOf = new Uint8Array(BUCKETS);
  /** When the last packet of the bucket came, in ms. */
  readonly #seenMs = new Float64Array(BUCKETS).fill(Number.NEGATIVE_INFINITY);
  /** Since the last look at the balance. */
  readonly #bytes = new Float64Array(BUCKETS);
  #balancedMs = 0;
  readonly #load = new Int32Array(256);

  /** Lanes are numbered from 0. */
  get lanes(): number {
    return this.#lanes;
  }

  /** Returns the lane of a packet of `bytes` that is sent now. */
  laneOf(hash: number, bytes: number, nowMs: number): number {
    const bucket = hash & (BUCKETS - 1);
    if (nowMs - this.#seenMs[bucket]! > QUIET_MS) this.#laneOf[bucket] = this.#emptiest(nowMs);
    this.#seenMs[bucket] = nowMs;
    this.#bytes[bucket]! += bytes;
    if (nowMs - this.#balancedMs >= BALANCE_MS) this.#balance(nowMs);
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

  /** Takes flows that send much from lanes that have several to lanes that have two fewer. */
  #balance(nowMs: number): void {
    this.#balancedMs = nowMs;
    if (this.#lanes > 1) {
      const load = this.#load.fill(0);
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        if (this.#bytes[bucket]! >= MUCH_BYTES) load[this.#laneOf[bucket]!]!++;
      }
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        if (this.#bytes[bucket]! < MUCH_BYTES) continue;
        const from = this.#laneOf[bucket]!;
        const to = emptiest(load, this.#lanes);
        if (load[from]! < load[to]! + 2) continue;
        load[from]!--;
        load[to]!++;
        this.#laneOf[bucket] = to;
      }
    }
    this.#bytes.fill(0);
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
const BUCKETS = 1024;
/** How often flows are weighed, in ms, and what counts as much in that time, in bytes. */
const BALANCE_MS = 1000;
const MUCH_BYTES = 64 * 1024;
/** After so long nothing of a flow is on its way any more, so that it may take another lane. */
const QUIET_MS = 1000;
