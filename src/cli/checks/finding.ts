/**
 * What `config check` finds: one sentence for each thing that it looks at, and what to do about it.
 * @module
 */

export type FindingStatus = 'ok' | 'warn' | 'fail';

export interface Finding {
  /** What was looked at, in one or two words: `tun`, `port`, `clock`. */
  readonly check: string;
  /** `warn`: the gateway runs, but something will not work as it should; `fail`: it does not start, or is of no use. */
  readonly status: FindingStatus;
  /** What was found. */
  readonly message: string;
  /** What to do; undefined if nothing is. */
  readonly remedy?: string | undefined;
}

export function ok(check: string, message: string): Finding {
  return { check, status: 'ok', message };
}

export function warn(check: string, message: string, remedy: string): Finding {
  return { check, status: 'warn', message, remedy };
}

export function fail(check: string, message: string, remedy: string): Finding {
  return { check, status: 'fail', message, remedy };
}

/** Returns the lines for people: status, check and sentence, and below it the remedy. */
export function linesOf(findings: readonly Finding[]): string[] {
  const width = Math.max(...findings.map(({ check }) => check.length));
  return findings.flatMap(({ check, status, message, remedy }) => [
    `${status.padEnd(4)}  ${check.padEnd(width)}  ${message}`,
    ...(remedy === undefined ? [] : [`${' '.repeat(8 + width)}do: ${remedy}`]),
  ]);
}
