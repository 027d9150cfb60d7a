/**
 * Finds the operation of a request.
 * @module
 */
import type { AnyOperation, Operations } from './operation.ts';
import { AdminRequestError } from './problem.ts';

/** An operation with the texts of the parameters in the path. */
export interface Match {
  readonly name: string;
  readonly operation: AnyOperation;
  readonly params: Readonly<Record<string, string>>;
}

interface Entry {
  readonly name: string;
  readonly operation: AnyOperation;
  /** Each is a text, or the name of a parameter in braces. */
  readonly segments: readonly string[];
}

export class Router {
  /** Keyed by the number of segments. */
  readonly #entries = new Map<number, Entry[]>();

  constructor(operations: Operations) {
    for (const [name, operation] of Object.entries(operations)) {
      const segments = operation.path.split('/').slice(1);
      const entries = this.#entries.get(segments.length) ?? [];
      entries.push({ name, operation, segments });
      this.#entries.set(segments.length, entries);
    }
  }

  /**
   * @param path the path of a request, without its query; segments are percent-encoded
   * @throws {AdminRequestError} if there is no such path (404), the path has other methods (405), or it is not encoded
   *   as it should be (400).
   */
  match(method: string, path: string): Match {
    const segments = path.split('/').slice(1).map(decode);
    const found = (this.#entries.get(segments.length) ?? []).filter((entry) =>
      entry.segments.every((each, i) => (isParam(each) ? segments[i] !== '' : each === segments[i]))
    );
    // A text goes before a parameter: `/v1/ca/bundle` is not a CA of that name.
    const texts = ({ segments: all }: Entry) => all.filter((each) => !isParam(each)).length;
    const most = Math.max(...found.map(texts));
    const best = found.filter((entry) => texts(entry) === most);
    const entry = best.find(({ operation }) => operation.method === method);
    if (entry !== undefined) {
      const { name, operation } = entry;
      return { name, operation, params: paramsOf(entry.segments, segments) };
    }
    if (best.length === 0) throw new AdminRequestError(404, `there is no ${path}`);
    const allow = best.map(({ operation }) => operation.method);
    throw new AdminRequestError(405, `${path} has no ${method}, only ${allow.join(', ')}`, allow);
  }
}

function isParam(segment: string): boolean {
  return segment.startsWith('{');
}

function paramsOf(pattern: readonly string[], segments: readonly string[]): Record<string, string> {
  const params = pattern.flatMap((each, i) =>
    isParam(each) ? [[each.slice(1, -1), segments[i]!] as const] : []
  );
  return Object.fromEntries(params);
}

function decode(segment: string): string {
  try {
    return decodeURIComponent(segment);
  } catch {
    throw new AdminRequestError(
      400,
      `the path has "${segment}", which is not percent-encoded text`
    );
  }
}
