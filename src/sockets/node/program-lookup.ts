/**
 * Calls the `lookup` function of a program, which may throw, answer twice or answer with anything.
 * @module
 */

/** A function with the arguments of `dns.lookup`. */
export type ProgramLookup<Options> = (
  hostname: string,
  options: Options,
  callback: (error: Error | null, found: unknown, family?: number) => void
) => void;

/** An address as `dns.lookup` finds it. */
export interface FoundAddress {
  readonly address: string;
  readonly family: number | undefined;
}

/**
 * Calls `answer` once: with the error, with the list of addresses that were found, or with undefined if the answer is
 * nothing that `dns.lookup` would find.
 */
export function callLookup<Options>(
  lookup: ProgramLookup<Options>,
  hostname: string,
  options: Options,
  answer: (error: Error | null, found: readonly FoundAddress[] | undefined) => void
): void {
  let isAnswered = false;
  const answerOnce = (error: Error | null, found: readonly FoundAddress[] | undefined): void => {
    if (isAnswered) return;
    isAnswered = true;
    answer(error, found);
  };
  try {
    lookup(hostname, options, (error: Error | null, found: unknown, family?: number) => {
      if (error) answerOnce(error, []);
      else answerOnce(null, listOf(found, family));
    });
  } catch (error) {
    // What an answer throws is no fault of the function.
    if (isAnswered) throw error;
    answerOnce(error as Error, []);
  }
}

function listOf(found: unknown, family: number | undefined): readonly FoundAddress[] | undefined {
  if (found == null) return [];
  if (typeof found === 'string') return [{ address: found, family }];
  const isList = Array.isArray(found) && found.every((each) => typeof each?.address === 'string');
  return isList ? (found as readonly FoundAddress[]) : undefined;
}
