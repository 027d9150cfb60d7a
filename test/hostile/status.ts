/**
 * Turns the answer of `GET /v1/status` into counters with names.
 * @module
 */

/** Returns the counters by path, for example `sites.site-a.verdicts.DropSpoofed`; sites are keyed by name. */
export type Counters = ReadonlyMap<string, number>;

export function countersOf(status: object): Counters {
  const counters = new Map<string, number>();
  collect('', status, counters);
  return counters;
}

function collect(path: string, value: unknown, counters: Map<string, number>): void {
  if (typeof value === 'number') counters.set(path, value);
  if (typeof value !== 'object' || value === null) return;
  for (const [key, each] of Object.entries(value)) {
    const name = Array.isArray(value) ? (each as { name: string }).name : key;
    collect(path === '' ? name : `${path}.${name}`, each, counters);
  }
}
