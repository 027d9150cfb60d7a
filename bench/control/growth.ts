/**
 * How figures grow with the number of sites.
 * @module
 */
import { rounded } from '../gateway/report.ts';

/** Keyed by figure: the exponent with which it grows with the number of sites; null if a figure is missing. */
export type Growth = Readonly<Record<string, number | null>>;

/** Fits `value = c * sites ^ exponent` by least squares of the logarithms. Returns null if a figure is missing. */
export function exponentOf(
  sites: readonly number[],
  values: readonly (number | null)[]
): number | null {
  if (values.some((value) => value === null)) return null;
  const xs = sites.map((count) => Math.log(count));
  const ys = values.map((value) => Math.log(value!));
  const mean = (list: readonly number[]) => list.reduce((sum, each) => sum + each, 0) / list.length;
  const [meanX, meanY] = [mean(xs), mean(ys)];
  const above = xs.reduce((sum, x, i) => sum + (x - meanX) * (ys[i]! - meanY), 0);
  const below = xs.reduce((sum, x) => sum + (x - meanX) ** 2, 0);
  return rounded(above / below);
}
