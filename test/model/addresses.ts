/**
 * Model of an address that is released and leased again: X is host K's, is released, and may become host L's. Time
 * passes in ticks. Who has seen that X is K's, and serves, gives DNS answers that live for a TTL after that. The edge may
 * be away; it answers from its last snapshot.
 * @module
 */
import { type Model, type Step, step } from './explore.ts';

export type AddressFault = 'cut' | 'stall' | 'controller' | 'restore' | 'pool' | 'edge';

export interface AddressRules {
  /**
   * A released address rests a quarantine from when the controller's process saw the release, by its monotonic clock,
   * and a TTL from when the last machine has applied it or must have stopped. The draft had a quarantine by the time of
   * day in the lease, and waited for machines that were cut off.
   */
  readonly rest: 'applied' | 'quarantine';
  /** An edge that comes back bars for a TTL what its new snapshot gives to another host. */
  readonly edgeBars: boolean;
}

export interface AddressScene {
  readonly allow: readonly AddressFault[];
  readonly faults?: number;
  /** How many ticks the wall clock of the other machine is ahead. */
  readonly skew?: number;
  /** Whether what clients at the edge reach counts; otherwise only what the machines use. */
  readonly edge?: boolean;
}

/** Whose X is: 0 is K's, 1 nobody's, 2 L's. */
type Owner = 0 | 1 | 2;

interface Machine {
  seen: Owner;
  on: boolean;
  attached: boolean;
  stalled: boolean;
  loading: number;
  cutAt: number;
  told: boolean;
  toldAt: number;
}

interface State {
  x: Owner;
  releasedAt: number | null;
  controller: number;
  sawRelease: number;
  m: [Machine, Machine];
  edge: { seen: Owner; up: boolean; barred: number };
  /** For how long a cached answer still says K. */
  cached: number;
  faults: number;
}

const TTL = 2;
const QUARANTINE = 4;
/** After how many ticks a detached machine stops. */
const STOP = 4;
/** What is longer ago is all the same. */
const PAST = -9;

export function addresses(rules: AddressRules, scene: AddressScene): Model<State> {
  const { allow, faults = 2, skew = 0, edge = true } = scene;
  const isByApplied = rules.rest === 'applied';
  const wall = (i: number): number => (i === 1 ? skew : 0);

  const release = (c: State, at: number): void => {
    c.x = 1;
    c.releasedAt = at;
    c.sawRelease = 0;
    for (const m of c.m) {
      m.told = false;
      m.toldAt = 0;
    }
  };
  /** The lease of X is gone without a release. */
  const forget = (c: State): void => {
    c.faults--;
    if (isByApplied) release(c, 0);
    else {
      c.x = 1;
      c.releasedAt = PAST;
    }
  };
  const tick = (c: State): void => {
    if (c.releasedAt !== null) c.releasedAt = earlier(c.releasedAt);
    c.sawRelease = earlier(c.sawRelease);
    c.cached = earlier(c.cached);
    c.edge.barred = earlier(c.edge.barred);
    for (const m of c.m) {
      m.cutAt = m.attached ? 0 : earlier(m.cutAt);
      m.toldAt = m.told ? earlier(m.toldAt) : 0;
      if (m.loading > 0) m.loading--;
      if (!m.attached && -m.cutAt >= STOP) m.on = false;
    }
    if (c.m.some((m) => m.on && m.seen === 0) || c.edge.seen === 0) c.cached = TTL;
  };
  /** The next tick comes only when every machine that is well has kept up. */
  const mayTick = (s: State): boolean => {
    const isWell = (m: Machine): boolean => m.on && m.attached && !m.stalled && m.loading === 0;
    const edgeIsBehind = s.edge.up && s.edge.seen !== s.m[0].seen && s.m[0].on;
    return !edgeIsBehind && !s.m.some((m) => isWell(m) && m.seen !== s.x);
  };
  const isFree = (s: State): boolean => {
    if (!isByApplied) {
      const rested = wall(s.controller) - s.releasedAt! >= QUARANTINE;
      return rested && s.m.every((m) => m.attached || !m.on);
    }
    const isOver = (m: Machine): boolean =>
      m.told ? m.toldAt + TTL <= 0 : !m.attached && m.cutAt + STOP + TTL <= 0;
    return -s.sawRelease >= QUARANTINE && s.m.every(isOver);
  };

  return {
    init: {
      x: 0,
      releasedAt: null,
      controller: 0,
      sawRelease: 0,
      m: [newMachine(), newMachine()],
      edge: { seen: 0, up: true, barred: 0 },
      cached: TTL,
      faults,
    },
    bad(s) {
      const uses = (owner: Owner): boolean => s.m.some((m) => m.on && m.seen === owner);
      if (uses(2) && uses(0)) return 'X is used for K and for L';
      const isReached = edge ? s.edge.seen === 2 && s.edge.barred <= 0 : true;
      if (s.cached > 0 && uses(2) && isReached) return 'X is used for L, a cached answer says K';
      return undefined;
    },
    next(s) {
      const out: Step<State>[] = [];
      const on = (name: string, isPossible: boolean, change: (c: State) => unknown): void => {
        if (isPossible) out.push(...step(name, s, change));
      };
      const may = (kind: AddressFault): boolean => s.faults > 0 && allow.includes(kind);
      // Nobody and no cache remembers that X was K's.
      const isForgotten = s.cached <= 0 && s.edge.seen !== 0;
      if (s.x !== 0 && isForgotten && s.m.every((m) => !m.on || m.seen !== 0)) return out;
      on('tick', mayTick(s), tick);
      on('release', s.x === 0, (c) => release(c, wall(s.controller)));
      on('restore: the store has never heard of X', may('restore') && s.x === 0, forget);
      on('the pool is taken out and put back', may('pool') && s.x === 0, forget);
      on('the other machine is controller', may('controller'), (c) => {
        c.faults--;
        c.controller = 1 - c.controller;
        // It counts from when it saw the release itself.
        if (c.x === 1) c.sawRelease = 0;
      });
      on('the edge is away', may('edge') && s.edge.up, (c) => {
        c.faults--;
        c.edge.up = false;
      });
      on('the edge is back', !s.edge.up, (c) => {
        c.edge.up = true;
      });
      const hasNews = s.edge.up && s.m[0].on && s.edge.seen !== s.m[0].seen;
      on('snapshot to the edge', hasNews, (c) => {
        if (rules.edgeBars && c.edge.seen === 0) c.edge.barred = TTL;
        c.edge.seen = c.m[0].seen;
      });
      for (const i of [0, 1] as const) {
        const m = s.m[i];
        on(`M${i} is cut off`, may('cut') && m.attached && i === 1, (c) => {
          c.faults--;
          c.m[i].attached = false;
          c.m[i].cutAt = 0;
        });
        on(`M${i} is back`, !m.attached && m.on, (c) => {
          c.m[i].attached = true;
          c.m[i].loading = 1;
        });
        on(
          `the watch of M${i} stalls`,
          may('stall') && m.attached && !m.stalled && i === 1,
          (c) => {
            c.faults--;
            c.m[i].stalled = true;
          }
        );
        on(`the watch of M${i} goes on`, m.stalled, (c) => {
          c.m[i].stalled = false;
        });
        on(`M${i} sees`, m.on && m.attached && !m.stalled && m.seen !== s.x, (c) => {
          c.m[i].seen = c.x;
          c.m[i].loading = 0;
        });
        const hasApplied = m.on && m.attached && s.x === 1 && m.seen === 1;
        on(`M${i} says that it has applied it`, hasApplied && !m.told, (c) => {
          c.m[i].told = true;
          c.m[i].toldAt = 0;
        });
      }
      on('X is given to L', s.x === 1 && isFree(s), (c) => {
        c.x = 2;
      });
      return out;
    },
  };
}

function newMachine(): Machine {
  return {
    seen: 0,
    on: true,
    attached: true,
    stalled: false,
    loading: 0,
    cutAt: 0,
    told: false,
    toldAt: 0,
  };
}

/** A time relative to now, one tick later. */
function earlier(at: number): number {
  return Math.max(PAST, at - 1);
}
