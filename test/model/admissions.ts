/**
 * Model of the admission of a client: host K asks for an address at worker 0, then, as its site has moved, at worker 1.
 * Two controllers take turns. Transactions are on their way, may be applied late, and compare the address's own version.
 * @module
 */
import { type Model, type Step, step } from './explore.ts';

export interface AdmissionRules {
  /** A commit of leases compares the controller's key with the epoch of its writer. */
  readonly epochGuard: boolean;
  /** A controller begins when its watch has reached its epoch. */
  readonly caughtUp: boolean;
  /** A controller that is elected again begins without what it left unstored. */
  readonly forgets: boolean;
  /** Each worker asks by a key of its own, which ends with that worker. */
  readonly perWorker: boolean;
}

export interface AdmissionScene {
  readonly faults: number;
  /**
   * With one asker, the search is for two addresses of one host. With two, one of which may die, it is for an asker that
   * waits for ever.
   */
  readonly askers: 1 | 2;
}

type Leases = Record<string, string>;
type Requests = Record<string, { by: number; v: number }>;

interface Controller {
  epoch: number;
  /** Up to where its watch is, and up to where it must be before it goes on. */
  at: number;
  min: number;
  /** The address that it has chosen for K, and that is not stored yet. */
  mem: string | null;
  lease: Leases;
  admit: Requests;
}

interface Commit {
  c: number;
  epoch: number;
  address: string;
  isNew: boolean;
  asked: [key: string, version: number][];
  /** It has got no answer; it may still be applied. */
  doubt?: boolean;
}

interface State {
  rev: number;
  ctl: { c: number; epoch: number } | null;
  lease: Leases;
  admit: Requests;
  faults: number;
  quiet: boolean;
  fly: Commit[];
  c: Controller[];
  w: { state: 'idle' | 'waits' | 'bound' | 'refused' | 'dead' }[];
}

const ADDRESSES = ['.5', '.6'];
/** How many transactions may be on their way. */
const MAX_FLY = 2;

export function admissions(rules: AdmissionRules, scene: AdmissionScene): Model<State> {
  const { faults, askers } = scene;
  const keyOf = (w: number): string => (rules.perWorker ? `w${w}` : 'one');
  const has = (lease: Leases): string[] => Object.keys(lease).filter((a) => lease[a] === 'K');

  const ask = (c: State, w: number): void => {
    c.w[w]!.state = 'waits';
    c.admit[keyOf(w)] ??= { by: w, v: ++c.rev };
  };
  const apply = (c: State, n: number): void => {
    const [x] = c.fly.splice(n, 1) as [Commit];
    if (rules.epochGuard && !(c.ctl?.c === x.c && c.ctl.epoch === x.epoch)) return;
    if (x.isNew && c.lease[x.address] !== undefined) return;
    const before = JSON.stringify([c.lease, c.admit]);
    c.lease[x.address] = 'K';
    for (const [key, version] of x.asked) if (c.admit[key]?.v === version) delete c.admit[key];
    if (JSON.stringify([c.lease, c.admit]) !== before) c.rev++;
    // A commit resolves when the own watch has reached it.
    if (!x.doubt) c.c[x.c]!.min = c.rev;
  };

  const workers = (s: State): Step<State>[] => {
    const out: Step<State>[] = [];
    for (let w = 0; w < askers; w++) {
      const { state } = s.w[w]!;
      if (state === 'idle' && !s.quiet) out.push(...step(`K asks at W${w}`, s, (c) => ask(c, w)));
      if (state !== 'waits' || s.admit[keyOf(w)] !== undefined) continue;
      // Its watch shows that the key is gone. Either the address is there, or that was a refusal.
      const see = (c: State): void => {
        c.w[w]!.state = has(c.lease).length > 0 ? 'bound' : 'refused';
      };
      out.push(...step(`W${w} sees`, s, see));
    }
    if (askers > 1 && s.faults > 0 && !s.quiet && s.w[0]!.state === 'waits') {
      const die = (c: State): void => {
        c.faults--;
        c.w[0]!.state = 'dead';
        for (const key of Object.keys(c.admit)) {
          if (c.admit[key]!.by !== 0) continue;
          delete c.admit[key];
          c.rev++;
        }
      };
      out.push(...step('W0 dies', s, die));
    }
    return out;
  };

  /** What the controller sends next: each address that it could choose. */
  const commits = (s: State, i: number): Step<State>[] => {
    const c0 = s.c[i]!;
    if (c0.epoch === 0 || c0.at < c0.min || (rules.caughtUp && c0.at < c0.epoch)) return [];
    if (s.fly.length >= MAX_FLY || s.fly.some((x) => x.c === i && !x.doubt)) return [];
    const asked = Object.keys(c0.admit);
    // What a failed commit has not stored goes with the next one.
    if (asked.length === 0 && c0.mem === null) return [];
    const mine = has(c0.lease);
    const free = ADDRESSES.filter((address) => c0.lease[address] === undefined);
    const choices = c0.mem !== null ? [c0.mem] : mine.length > 0 ? mine : free;
    return choices.flatMap((address) =>
      step(`C${i} sends ${mine.length > 0 ? 'done' : `K=${address}`}`, s, (c) => {
        c.c[i]!.mem = mine.length > 0 ? null : address;
        c.fly.push({
          c: i,
          epoch: c0.epoch,
          address,
          isNew: !mine.includes(address),
          asked: asked.map((key) => [key, c0.admit[key]!.v]),
        });
      })
    );
  };

  const controllers = (s: State): Step<State>[] => {
    const out: Step<State>[] = [];
    if (s.faults > 0 && !s.quiet && s.ctl !== null) {
      const lose = (c: State): void => {
        c.faults--;
        c.ctl = null;
        c.rev++;
      };
      out.push(...step(`C${s.ctl.c} loses its lease`, s, lose));
    }
    for (const [i, c0] of s.c.entries()) {
      if (s.ctl === null) {
        const elect = (c: State): void => {
          c.ctl = { c: i, epoch: ++c.rev };
          c.c[i]!.epoch = c.rev;
          if (rules.forgets) c.c[i]!.mem = null;
        };
        out.push(...step(`C${i} is elected`, s, elect));
      }
      if (c0.at !== s.rev) {
        const see = (c: State): void => {
          const me = c.c[i]!;
          Object.assign(me, { at: c.rev, lease: c.lease, admit: c.admit });
          if (me.mem !== null && me.lease[me.mem] === 'K') me.mem = null;
          if (c.ctl?.c !== i || c.ctl.epoch !== me.epoch) me.epoch = 0;
        };
        out.push(...step(`C${i} sees`, s, see));
      }
      out.push(...commits(s, i));
    }
    return out;
  };

  const network = (s: State): Step<State>[] => {
    const out: Step<State>[] = [];
    for (const [n, x] of s.fly.entries()) {
      out.push(...step(`${x.doubt ? 'late ' : ''}commit of C${x.c}`, s, (c) => apply(c, n)));
      if (x.doubt || s.faults === 0 || s.quiet) continue;
      const lose = (c: State): void => {
        c.faults--;
        c.fly[n]!.doubt = true;
      };
      out.push(...step(`the commit of C${x.c} gets no answer`, s, lose));
    }
    return out;
  };

  const model: Model<State> = {
    init: {
      rev: 1,
      ctl: null,
      lease: {},
      admit: {},
      faults,
      quiet: false,
      fly: [],
      c: [0, 1].map(() => ({ epoch: 0, at: 1, min: 0, mem: null, lease: {}, admit: {} })),
      w: [{ state: 'idle' }, { state: 'idle' }],
    },
    bad: (s) => (has(s.lease).length > 1 ? 'K has two addresses' : undefined),
    next(s) {
      const out: Step<State>[] = [];
      if (askers > 1 && !s.quiet) {
        const end = (c: State): void => {
          c.quiet = true;
        };
        out.push(...step('quiet', s, end));
      }
      out.push(...workers(s), ...controllers(s), ...network(s));
      return out;
    },
  };
  if (askers === 1) return model;
  const isGood = (s: State): boolean =>
    s.w.every(({ state }) => state !== 'waits' && state !== 'refused') &&
    Object.keys(s.admit).length === 0;
  return { ...model, end: { isQuiet: (s) => s.quiet, isGood } };
}
