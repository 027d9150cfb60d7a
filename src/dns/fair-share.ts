/**
 * `FairShare`: a number of places that many clients share. A client gets another place only while more
 * places are free than it holds. A client that is alone gets half of the places; if n clients want as
 * many as they can get, each gets one part in n + 1, and one part stays free for the next client. No client can
 * shut another out, and no limit for a single client has to be chosen. This is the dynamic threshold of
 * Choudhury and Hahne
 * ([IEEE/ACM Transactions on Networking 6(2), 1998](https://doi.org/10.1109/90.664262)).
 * @module
 */
export class FairShare {
  readonly #max: number;
  #taken = 0;
  /** The places of each client that has any. */
  readonly #byClient = new Map<string, number>();

  /** @param max the number of places. */
  constructor(max: number) {
    this.#max = max;
  }

  get isFull(): boolean {
    return this.#taken >= this.#max;
  }

  /** Takes a place for `client`; returns false if it gets none. */
  take(client: string): boolean {
    const own = this.#byClient.get(client) ?? 0;
    if (own >= this.#max - this.#taken) return false;
    this.#byClient.set(client, own + 1);
    this.#taken++;
    return true;
  }

  /** Returns a place that `client` has taken. */
  release(client: string): void {
    const own = this.#byClient.get(client)!;
    if (own === 1) this.#byClient.delete(client);
    else this.#byClient.set(client, own - 1);
    this.#taken--;
  }
}
