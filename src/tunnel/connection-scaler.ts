/**
 * How many connections a tunnel ought to have: one while there is little to do, so that an idle site costs
 * one connection; one for each flow, up to a limit, when much moves. On the way each then has a share
 * of its own, and a lost segment holds up one of them only.
 * @module
 */

export class ConnectionScaler {
  readonly #max: number;
  #wanted = 1;
  #neededMs = 0;
  #bytes = 0;

  constructor(max: number) {
    this.#max = max;
  }

  /**
   * To be asked every `CONNECTION_CHECK_MS`.
   *
   * @param bytes sent and received, cumulative
   * @param flows that have sent something lately
   */
  update(nowMs: number, bytes: number, flows: number): number {
    const isBusy = bytes - this.#bytes >= BUSY_BYTES;
    this.#bytes = bytes;
    const needed = isBusy ? Math.min(Math.max(flows, 1), this.#max) : 1;
    if (needed >= this.#wanted || nowMs - this.#neededMs >= KEEP_MS) {
      this.#wanted = needed;
      this.#neededMs = nowMs;
    }
    return this.#wanted;
  }
}

export const CONNECTION_CHECK_MS = 250;
/** Of one check interval: 4 Mbit/s. */
const BUSY_BYTES = 128 * 1024;
/** Connections that are not needed are kept so long: to open one takes several round trips. */
const KEEP_MS = 30_000;
