/**
 * Which connection a flow takes. Flows are told apart by a hash, in buckets; a bucket stays on its connection while
 * packets come, so that they stay in order, and goes to the connection with the fewest when it has been quiet.
 * When connections come and go, and when a connection has to carry several flows that send much while another has
 * none, no more buckets move than balance needs: those few flows may see packets overtake others, once.
 * @module
 */

export class FlowSteering {
  #connections = 1;
  readonly #connectionOf = new Uint8Array(BUCKETS);
  /** When the last packet of the bucket came, in ms. */
  readonly #seenMs = new Float64Array(BUCKETS).fill(Number.NEGATIVE_INFINITY);
  /** Since the last look at the balance. */
  readonly #bytes = new Float64Array(BUCKETS);
  #balancedMs = 0;
  readonly #load = new Int32Array(256);

  /** Connections are numbered from 0. */
  get connections(): number {
    return this.#connections;
  }

  /** Returns the connection of a packet of `bytes` that is sent now. */
  connectionOf(hash: number, bytes: number, nowMs: number): number {
    const bucket = hash & (BUCKETS - 1);
    if (nowMs - this.#seenMs[bucket]! > QUIET_MS)
      this.#connectionOf[bucket] = this.#emptiest(nowMs);
    this.#seenMs[bucket] = nowMs;
    this.#bytes[bucket]! += bytes;
    if (nowMs - this.#balancedMs >= BALANCE_MS) this.#balance(nowMs);
    return this.#connectionOf[bucket]!;
  }

  /** How many flows, as far as the buckets tell them apart, have sent something lately. */
  active(nowMs: number): number {
    let count = 0;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (nowMs - this.#seenMs[bucket]! <= QUIET_MS) count++;
    }
    return count;
  }

  /** Connections from 0 to `connections - 1` are there from now on, and no others. */
  setConnections(connections: number, nowMs: number): void {
    const load = this.#countLoad(nowMs);
    this.#connections = connections;
    let share = 0;
    for (let connection = 0; connection < 256; connection++) share += load[connection]!;
    share = Math.ceil(share / connections);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      const from = this.#connectionOf[bucket]!;
      if (from < connections && load[from]! <= share) continue;
      if (nowMs - this.#seenMs[bucket]! > QUIET_MS) continue;
      const to = emptiest(load, connections);
      load[from]!--;
      load[to]!++;
      this.#connectionOf[bucket] = to;
    }
  }

  /** The connection is gone; the last one has its number from now on. */
  removeConnection(gone: number, nowMs: number): void {
    const last = this.#connections - 1;
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (this.#connectionOf[bucket] === gone) this.#connectionOf[bucket] = last;
      else if (this.#connectionOf[bucket] === last) this.#connectionOf[bucket] = gone;
    }
    this.setConnections(last, nowMs);
  }

  /** Takes flows that send much from connections that have several to connections that have two fewer. */
  #balance(nowMs: number): void {
    this.#balancedMs = nowMs;
    if (this.#connections > 1) {
      const load = this.#load.fill(0);
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        if (this.#bytes[bucket]! >= MUCH_BYTES) load[this.#connectionOf[bucket]!]!++;
      }
      for (let bucket = 0; bucket < BUCKETS; bucket++) {
        if (this.#bytes[bucket]! < MUCH_BYTES) continue;
        const from = this.#connectionOf[bucket]!;
        const to = emptiest(load, this.#connections);
        if (load[from]! < load[to]! + 2) continue;
        load[from]!--;
        load[to]!++;
        this.#connectionOf[bucket] = to;
      }
    }
    this.#bytes.fill(0);
  }

  #emptiest(nowMs: number): number {
    return this.#connections === 1 ? 0 : emptiest(this.#countLoad(nowMs), this.#connections);
  }

  #countLoad(nowMs: number): Int32Array {
    const load = this.#load.fill(0);
    for (let bucket = 0; bucket < BUCKETS; bucket++) {
      if (nowMs - this.#seenMs[bucket]! <= QUIET_MS) load[this.#connectionOf[bucket]!]!++;
    }
    return load;
  }
}

function emptiest(load: Int32Array, connections: number): number {
  let least = 0;
  for (let connection = 1; connection < connections; connection++) {
    if (load[connection]! < load[least]!) least = connection;
  }
  return least;
}

/** A power of two. */
const BUCKETS = 1024;
/** How often flows are weighed, in ms, and what counts as much in that time, in bytes. */
const BALANCE_MS = 1000;
const MUCH_BYTES = 64 * 1024;
/** After so long nothing of a flow is on its way any more, so that it may take another connection. */
const QUIET_MS = 1000;
