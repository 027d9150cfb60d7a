/**
 * `FairShare`: places that many clients share. A client gets another place only while more of them are
 * free than it has. So one that is alone gets half of them, each of n that want all gets one in n + 1,
 * and as many stay free for the next that comes. No client can keep another out, and no number has to be
 * chosen for each. It is the dynamic threshold of Choudhury and Hahne
 * ([IEEE/ACM Transactions on Networking 6(2), 1998](https://doi.org/10.1109/90.664262)).
 * @module
 */
export class FairShare {
  readonly #max: number;
  #taken = 0;
  /** Of clients that have any. */
  readonly #byClient = new Map<string, number>();

  /** @param max places in all */
  constructor(max: number) {
    this.#max = max;
  }

  get isFull(): boolean {
    return this.#taken >= this.#max;
  }

  /** Takes a place for `client`; returns false if there is none for it. */
  take(client: string): boolean {
    const own = this.#byClient.get(client) ?? 0;
    if (own >= this.#max - this.#taken) return false;
    this.#byClient.set(client, own + 1);
    this.#taken++;
    return true;
  }

  /** Gives back a place that `client` has taken. */
  giveBack(client: string): void {
    const own = this.#byClient.get(client)!;
    if (own === 1) this.#byClient.delete(client);
    else this.#byClient.set(client, own - 1);
    this.#taken--;
  }
}
