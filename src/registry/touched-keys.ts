/**
 * The keys that changes have touched, while they are collected.
 * @module
 */
import type { ExposureId, Touched } from './source.ts';

/** What a change has touched so far; see `Touched`. */
export interface TouchedKeys {
  sites: Set<string>;
  services: Set<string>;
  exposures: Map<string, ExposureId>;
}

/** Returns that nothing was touched. */
export function noneTouched(): TouchedKeys {
  return { sites: new Set(), services: new Set(), exposures: new Map() };
}

/** Returns what was touched, and leaves nothing. */
export function takeAll(touched: TouchedKeys): Touched {
  const all = { ...touched };
  Object.assign(touched, noneTouched());
  return all;
}
