/**
 * Finds the name that somebody may have meant.
 * @module
 */

/** Returns the name that takes the fewest changes of single letters to get to; undefined if none is near. */
export function nearest(text: string, names: Iterable<string>): string | undefined {
  let found: string | undefined;
  let least = Math.max(1, Math.floor(text.length / 3)) + 1;
  for (const name of names) {
    if (Math.abs(name.length - text.length) >= least) continue;
    const distance = changesBetween(text.toLowerCase(), name.toLowerCase());
    if (distance >= least) continue;
    least = distance;
    found = name;
  }
  return found;
}

/** Returns `; did you mean "NAME"?`, or nothing if no name is near. */
export function hint(text: string, names: Iterable<string>): string {
  const found = nearest(text, names);
  return found === undefined ? '' : `; did you mean "${found}"?`;
}

/** Returns the Levenshtein distance. */
function changesBetween(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const replaced = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(replaced, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
