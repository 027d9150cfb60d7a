/**
 * Searches all states of a small model of a protocol, breadth first, so that a counterexample is as short as it can be.
 * States are plain JSON.
 * @module
 */

export interface Model<State> {
  readonly init: State;
  /** Returns what can happen next, by name, and the states after it. */
  next(state: State): readonly Step<State>[];
  /** Safety: returns what is wrong with a state; undefined if nothing is. */
  bad?(state: State): string | undefined;
  /**
   * Liveness: from every quiet state, quiet steps must be able to reach a good one. Quiet steps are those between quiet
   * states. A model makes no fault once it is quiet.
   */
  readonly end?: {
    isQuiet(state: State): boolean;
    isGood(state: State): boolean;
  };
}

export type Step<State> = readonly [name: string, to: State];

export interface Verdict {
  /** `broken`: a bad state was reached; `stuck`: a quiet state from which no good one can be reached. */
  readonly kind: 'holds' | 'broken' | 'stuck' | 'undecided';
  /** How many states were found. */
  readonly states: number;
  /** What is wrong, and the steps that lead there. */
  readonly text: string;
}

/** @param limit after how many states the search gives up */
export function explore<State>(model: Model<State>, limit = 1_500_000): Verdict {
  const index = new Map<string, number>();
  const states: string[] = [];
  const from: (readonly [parent: number, name: string])[] = [];
  const edges: number[][] = [];
  const add = (state: State, parent: number, name: string): number => {
    const text = JSON.stringify(state);
    let at = index.get(text);
    if (at === undefined) {
      at = states.length;
      index.set(text, at);
      states.push(text);
      from.push([parent, name]);
    }
    return at;
  };
  const read = (at: number): State => JSON.parse(states[at]!) as State;
  const verdict = (kind: Verdict['kind'], text: string): Verdict => ({
    kind,
    states: states.length,
    text,
  });
  add(model.init, 0, '');
  for (let at = 0; at < states.length; at++) {
    if (states.length > limit) return verdict('undecided', `there are more than ${limit} states`);
    const state = read(at);
    const fault = model.bad?.(state);
    if (fault !== undefined) return verdict('broken', `${fault}: ${traceOf(from, at)}`);
    edges.push(model.next(state).map(([name, to]) => add(to, at, name)));
  }
  const stuck = model.end && stuckState(model.end, states.length, read, edges);
  if (stuck === undefined) return verdict('holds', '');
  const text = `no good state can be reached: ${traceOf(from, stuck)}\n${states[stuck]}`;
  return verdict('stuck', text);
}

/** Returns copies of `state` that `change` has changed: one, or none if it returns false. */
export function step<State>(
  name: string,
  state: State,
  change: (copy: State) => unknown
): readonly Step<State>[] {
  const copy = JSON.parse(JSON.stringify(state)) as State;
  return change(copy) === false ? [] : [[name, copy]];
}

/** Returns the first quiet state from which no good one can be reached by quiet steps. */
function stuckState<State>(
  { isQuiet, isGood }: NonNullable<Model<State>['end']>,
  count: number,
  read: (at: number) => State,
  edges: readonly (readonly number[])[]
): number | undefined {
  const quiet = Array.from({ length: count }, (_, at) => isQuiet(read(at)));
  const before = quiet.map((): number[] => []);
  for (const [at, all] of edges.entries()) {
    if (quiet[at]) for (const to of all) before[to]!.push(at);
  }
  const can = quiet.map((isOne, at) => isOne && isGood(read(at)));
  const work = can.flatMap((yes, at) => (yes ? [at] : []));
  for (let next = work.pop(); next !== undefined; next = work.pop()) {
    for (const at of before[next]!) {
      if (can[at]) continue;
      can[at] = true;
      work.push(at);
    }
  }
  const stuck = quiet.findIndex((isOne, at) => isOne && !can[at]);
  return stuck === -1 ? undefined : stuck;
}

function traceOf(from: readonly (readonly [number, string])[], end: number): string {
  const names: string[] = [];
  for (let at = end; at > 0; at = from[at]![0]) names.unshift(from[at]![1]);
  return names.join('; ');
}
