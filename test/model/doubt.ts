/**
 * Model of a commit that gets no answer, is looked up, and is reported.
 * @module
 */
import { type Model, type Step, step } from './explore.ts';

export interface DoubtRules {
  /**
   * The writer first writes its fence anew, which the transaction compares, so that the transaction is applied by then
   * or never. The draft looked it up at once.
   */
  readonly fence: boolean;
}

interface State {
  /** The transaction is on its way. */
  isOnItsWay: boolean;
  fence: number;
  applied: boolean;
  said: 'done' | 'failed' | null;
}

export function doubt({ fence }: DoubtRules): Model<State> {
  return {
    init: { isOnItsWay: true, fence: 1, applied: false, said: null },
    bad(s) {
      if (s.said === 'failed' && s.applied) return 'it is reported as failed, and applied later';
      return s.said === 'done' && !s.applied
        ? 'it is reported as done, and was not applied'
        : undefined;
    },
    next(s) {
      const out: Step<State>[] = [];
      const on = (name: string, isPossible: boolean, change: (c: State) => unknown): void => {
        if (isPossible) out.push(...step(name, s, change));
      };
      on('etcd takes the transaction', s.isOnItsWay, (c) => {
        c.isOnItsWay = false;
        if (!fence || c.fence === 1) c.applied = true;
      });
      on('the fence is written', fence && s.fence === 1, (c) => {
        c.fence = 2;
      });
      on('the commit is looked up', s.said === null && (!fence || s.fence === 2), (c) => {
        c.said = c.applied ? 'done' : 'failed';
      });
      return out;
    },
  };
}
