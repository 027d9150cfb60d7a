/**
 * Model of one site that two workers hold in turn: the holder's key, its epoch, both ends of the tunnel, and routes. A
 * worker's route stands while it has its end of a tunnel and either believes that it has the key or is detached.
 *
 * The store is one linearizable register. A watch delivers everything in one step, at any later time.
 * @module
 */
import { type Model, type Step, step } from './explore.ts';

export type HolderFault = 'link' | 'etcd' | 'lease' | 'doubt' | 'crash' | 'drain' | 'restore';

/** The rules, each with what the first draft of the design had instead. */
export interface HolderRules {
  /** A worker that finds another one's key asks it (`want`); the holder gives up if its tunnel is dead. */
  readonly want: boolean;
  /** An edge refuses a lower epoch of the same store only; the draft refused every lower epoch. */
  readonly epochs: 'by store' | 'plain';
  /** An epoch is the version of the key, which a hand-over changes; the draft took the version of its creation. */
  readonly handOver: 'version' | 'creation';
  /** A worker gives a key up whose tunnel has not come up after a while. */
  readonly settle: boolean;
  /** A detached worker takes an edge back whose last epoch is the one that it gave last. */
  readonly takeBack: boolean;
}

export interface HolderScene {
  readonly faults: number;
  readonly allow: readonly HolderFault[];
  /** No packets flow, so a worker finds a dead tunnel only when it is asked. */
  readonly idle?: boolean;
  /** The edge never reaches worker 0 again. */
  readonly cutForGood?: boolean;
}

interface Worker {
  /** Whether it reaches the store. */
  etcd: boolean;
  /** The epoch of its end of a tunnel; 0 if it has none. */
  tun: number;
  /** The epoch of the last tunnel that it had while it was attached, or has. */
  last: number;
  /** It believes that it has the key. */
  mine: boolean;
  /** It knows that it is cut off. */
  det: boolean;
}

interface State {
  rev: number;
  /** How often the store was restored. */
  gen: number;
  key: { w: number; e: number } | null;
  w: [Worker, Worker];
  edge: { tun: number; max: number; gen: number };
  link: [boolean, boolean];
  faults: number;
  quiet: boolean;
}

type Index = 0 | 1;

export function holder(rules: HolderRules, scene: HolderScene): Model<State> {
  const { idle = false, cutForGood = false, allow } = scene;
  const may = (s: State, kind: HolderFault): boolean =>
    !s.quiet && s.faults > 0 && allow.includes(kind);
  const other = (i: Index): Index => (i === 0 ? 1 : 0);
  const free = (c: State, i: Index): void => {
    c.w[i].tun = 0;
    c.w[i].mine = false;
    if (c.w[i].etcd && c.key?.w === i) dropKey(c);
  };
  const isLive = (s: State, i: Index): boolean => s.w[i].tun > 0 && s.edge.tun === i && s.link[i];
  const takes = (s: State, e: number): boolean =>
    (rules.epochs === 'by store' && s.edge.gen !== s.gen) || e >= s.edge.max;
  const welcome = (c: State, i: Index, e: number): void => {
    // Otherwise the edge hangs up, and the worker still has the key.
    if (!takes(c, e)) return;
    c.w[i].tun = e;
    if (rules.takeBack) c.w[i].last = e;
    c.w[i].mine = c.w[i].etcd;
    c.edge = { tun: i, max: e, gen: c.gen };
  };

  /** The faults of the environment. */
  const faultsOf = (s: State, i: Index): Step<State>[] => {
    const out: Step<State>[] = [];
    const fault = (name: string, change: (c: State) => unknown): void => {
      const spend = (c: State): unknown => {
        c.faults--;
        return change(c);
      };
      out.push(...step(name, s, spend));
    };
    const w = s.w[i];
    const j = other(i);
    if (may(s, 'link') && s.link[i]) {
      fault(`the edge is cut from W${i}`, (c) => {
        c.link[i] = false;
      });
    }
    if (may(s, 'etcd') && w.etcd) {
      fault(`W${i} is cut from etcd`, (c) => {
        c.w[i].etcd = false;
      });
    }
    if (may(s, 'lease') && s.key?.w === i) fault(`W${i} loses its etcd lease`, dropKey);
    if (may(s, 'doubt') && s.key === null && w.etcd) {
      fault(`the claim of W${i} is applied after it gave up`, (c) => takeKey(c, i));
    }
    if (may(s, 'crash')) {
      fault(`W${i} crashes`, (c) => {
        c.w[i] = newWorker();
        if (c.key?.w === i) dropKey(c);
      });
    }
    if (may(s, 'drain') && s.key?.w === i && w.mine && w.etcd && s.w[j].etcd) {
      fault(`W${i} hands over to W${j}`, (c) => {
        raise(c);
        c.key = { w: j, e: rules.handOver === 'version' ? c.rev : c.key!.e };
        c.w[i].tun = 0;
        c.w[i].mine = false;
        if (c.edge.tun === i) c.edge.tun = -1;
      });
    }
    return out;
  };

  /** What a worker and the edge do. */
  const actionsOf = (s: State, i: Index): Step<State>[] => {
    const out: Step<State>[] = [];
    const on = (name: string, change: (c: State) => unknown): void => {
      out.push(...step(name, s, change));
    };
    const w = s.w[i];
    const j = other(i);
    if (!w.etcd && s.key?.w === i) on(`the lease of W${i} expires`, dropKey);
    if (!w.etcd && !w.det) {
      on(`W${i} is detached`, (c) => {
        c.w[i].det = true;
        c.w[i].mine = false;
      });
    }
    if (w.etcd) {
      on(`W${i} sees etcd`, (c) => {
        const x = c.w[i];
        x.det = false;
        if (c.key === null && x.tun > 0) {
          takeKey(c, i);
          x.mine = true;
        } else if (c.key !== null && c.key.w !== i) {
          if (x.tun > 0 && c.edge.tun === i && c.link[i]) c.edge.tun = -1;
          x.tun = 0;
          x.mine = false;
        } else x.mine = c.key?.w === i;
        if (x.tun === 0) x.last = 0;
      });
    }
    if (rules.settle && w.etcd && w.tun === 0 && s.key?.w === i) {
      on(`W${i} gives up what has no tunnel`, (c) => free(c, i));
    }
    if (w.tun > 0 && !isLive(s, i) && (!idle || !s.quiet)) {
      on(`W${i} misses its tunnel`, (c) => free(c, i));
    }
    if (s.edge.tun === i && !isLive(s, i)) {
      on('the edge misses its tunnel', (c) => {
        c.edge.tun = -1;
      });
    }
    if (s.edge.tun !== -1 || !s.link[i]) return out;
    // The edge dials: HELLO.
    if (!w.etcd) {
      if (w.last > 0 && w.last === s.edge.max && s.edge.gen === s.gen) {
        on(`W${i}, detached, takes its edge back`, (c) => welcome(c, i, w.last));
      }
    } else if (s.key === null) {
      on(`W${i} claims, WELCOME`, (c) => {
        takeKey(c, i);
        c.w[i].mine = true;
        welcome(c, i, c.key!.e);
      });
    } else if (s.key.w === i) {
      on(`W${i} has it, WELCOME`, (c) => welcome(c, i, c.key!.e));
    } else if (rules.want && s.w[j].etcd && !isLive(s, j)) {
      on(`W${i} asks, W${j} gives up`, (c) => free(c, j));
    }
    return out;
  };

  return {
    init: {
      rev: 1,
      gen: 0,
      key: null,
      w: [newWorker(), newWorker()],
      edge: { tun: -1, max: 0, gen: 0 },
      link: [true, true],
      faults: scene.faults,
      quiet: false,
    },
    bad(s) {
      const [a, b] = s.w;
      // The route with the higher epoch wins over another one.
      const isTie = s.gen === 0 && a.tun > 0 && a.tun === b.tun;
      return isTie ? 'two routes have one epoch' : undefined;
    },
    end: {
      isQuiet: (s) => s.quiet,
      isGood: (s) => {
        const i = s.edge.tun as Index | -1;
        if (i === -1 || !isLive(s, i) || s.key?.w !== i) return false;
        return s.w[other(i)].tun === 0 && (!cutForGood || i === 1);
      },
    },
    next(s) {
      const out: Step<State>[] = [];
      if (!s.quiet) {
        const heal = (c: State): void => {
          c.quiet = true;
          c.link = [!cutForGood, true];
          for (const w of c.w) w.etcd = true;
        };
        out.push(...step('quiet: all heals', s, heal));
      }
      if (may(s, 'restore')) {
        const restore = (c: State): void => {
          c.faults--;
          c.rev = 1;
          c.gen++;
          c.key = null;
          // So far below that nobody gets there again by claims.
          if (c.edge.max > 0) c.edge.max = FAR;
        };
        out.push(...step('etcd is restored to its first revision', s, restore));
      }
      for (const i of [0, 1] as const) out.push(...faultsOf(s, i), ...actionsOf(s, i));
      return out;
    },
  };
}

function newWorker(): Worker {
  return { etcd: true, tun: 0, last: 0, mine: false, det: false };
}

function dropKey(c: State): void {
  c.key = null;
  raise(c);
}

function takeKey(c: State, w: Index): void {
  raise(c);
  c.key = { w, e: c.rev };
}

function raise(c: State): void {
  c.rev = Math.min(c.rev + 1, MAX_REV);
}

/** The states stay finite by it; no history of the scenes needs so many. */
const MAX_REV = 40;
const FAR = 1000;
