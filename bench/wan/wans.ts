/**
 * The wans that are measured.
 * @module
 */
import type { WanShape } from './wan.ts';

export interface NamedWan extends WanShape {
  readonly name: string;
  /** Whether its link is so slow that it is the bottleneck: then latency under load is measured too. */
  readonly isFull: boolean;
}

/** @param linkMbps of the wans whose link is not what is asked about; undefined: no limit */
export function wans(linkMbps: number | undefined, offload: boolean): NamedWan[] {
  const fast = { ...(linkMbps === undefined ? {} : { rateMbps: linkMbps }), isFull: false };
  const slow = { rateMbps: 200, isFull: true };
  return [
    { name: '20ms', roundTripMs: 20, loss: 0, ...fast },
    { name: '20ms-0.1%', roundTripMs: 20, loss: 0.001, ...fast },
    { name: '20ms-1%', roundTripMs: 20, loss: 0.01, ...fast },
    { name: '50ms-0.1%-200M', roundTripMs: 50, loss: 0.001, ...slow },
    { name: '20ms-200M', roundTripMs: 20, loss: 0, ...slow },
  ].map((wan) => ({ ...wan, offload }));
}
