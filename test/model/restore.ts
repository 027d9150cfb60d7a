/**
 * Model of a store that is restored from a backup while machines run that have later data in memory. Versions 1 to 3 are
 * the history of the store: the backup is version 1, and each machine's memory is version 2 or 3. Host K gets another
 * address with each version, J has one since version 2, and host L wants one after the restore. Version 2 also has a
 * revocation, and a token is used there.
 *
 * Abstracted: what is recalled comes into force in one step, since nobody reads the store before.
 * @module
 */
import { type Model, type Step, step } from './explore.ts';

export interface RestoreRules {
  /** Each machine writes what it has in memory into the restored store. */
  readonly recalls: boolean;
  /** Nothing is allocated before all machines have recalled or must have stopped. */
  readonly waits: boolean;
  /** Machines that the recalled memories know are waited for too, not only those of the restored store. */
  readonly ofMemory: boolean;
  /** Then a TTL of names passes, since answers of processes may be cached whose memory is lost. */
  readonly ttl: boolean;
  /** The newest memory counts as a whole. Otherwise the leases in use of all are put together. */
  readonly newest: boolean;
  /** What a machine has recalled counts when it is complete, and not if the machine has ended before. */
  readonly complete: boolean;
  /** A machine that starts again leaves what it had recalled completely. */
  readonly keeps: boolean;
  /** Tokens that are not used in the restored store are void. */
  readonly voids: boolean;
}

export interface RestoreScene {
  readonly faults: number;
  readonly allow: readonly ('die' | 'cut')[];
  /** The versions in memory. */
  readonly memory: readonly [number, number];
  /** Whether the second machine has joined since the backup. */
  readonly joined?: boolean;
}

type Place = 'X' | 'Y' | 'Z' | 'W';
type Leases = Partial<Record<Place, 'K' | 'J' | 'L' | 'rests'>>;

/** What a store had at a version. */
interface Data {
  leases: Leases;
  revoked: boolean;
  token: 'unused' | 'used' | 'void';
}

interface Machine {
  /** `memory`: it serves by it; `fresh`: it has started again; `stopped`: it has ended its tunnels by itself. */
  run: 'memory' | 'fresh' | 'stopped';
  v: number;
  reaches: boolean;
  /** It follows the restored store. */
  follows: boolean;
}

interface State {
  store: Data;
  /** Whether the restored store is in force. */
  valid: boolean;
  /** What each machine has recalled: its version, 0 for nothing, and whether that is complete. */
  recalled: ({ v: number; complete: boolean } | null)[];
  m: [Machine, Machine];
  /** Whether a revocation was recalled completely. */
  told: boolean;
  rested: boolean;
  /** The leases that cached answers may name. */
  cached: string[];
  faults: number;
  quiet: boolean;
}

const HISTORY: readonly Data[] = [
  { leases: {}, revoked: false, token: 'unused' },
  { leases: { X: 'K' }, revoked: false, token: 'unused' },
  { leases: { X: 'rests', Y: 'K', Z: 'J' }, revoked: true, token: 'used' },
  { leases: { X: 'rests', Y: 'rests', Z: 'J', W: 'K' }, revoked: true, token: 'used' },
];
const PLACES: readonly Place[] = ['X', 'Y', 'Z', 'W'];

export function restore(rules: RestoreRules, scene: RestoreScene): Model<State> {
  const { faults, allow, memory, joined = false } = scene;
  const usedBy = ({ run, v, follows }: Machine, store: Data): Leases =>
    follows ? store.leases : run === 'memory' ? HISTORY[v]!.leases : {};
  const inUse = (s: State): string[] =>
    s.m.flatMap((m) =>
      Object.entries(usedBy(m, s.store)).flatMap(([place, of]) =>
        of === 'rests' ? [] : [`${place} ${of}`]
      )
    );

  const isKnown = (s: State, i: number): boolean => {
    if (i === 0 || !joined) return true;
    const isRecalled = s.recalled.some((each) => each?.complete === true && each.v >= 2);
    return (rules.ofMemory && isRecalled) || s.recalled[i] !== null;
  };
  const isDone = (s: State, i: number): boolean => {
    const recalled = s.recalled[i]!;
    if (recalled !== null && (recalled.complete || !rules.complete)) return true;
    return s.m[i as 0 | 1].run === 'stopped';
  };
  const areDone = (s: State): boolean =>
    [0, 1].every((i) => !isKnown(s, i) || isDone(s, i)) && s.recalled.some((each) => each !== null);

  /** The store as it comes into force. */
  const merged = (s: State): Data => {
    const all = s.recalled.filter(
      (each) => each !== null && each.v > 1 && (each.complete || !rules.complete)
    );
    const best = Math.max(0, ...all.map((each) => each!.v));
    const data = structuredClone(s.store);
    for (const each of all) {
      if (rules.newest && each!.v !== best) continue;
      const from = structuredClone(HISTORY[each!.v]!);
      if (rules.newest && each!.complete) data.leases = from.leases;
      else {
        // The leases in use are the first part.
        const parts = Object.entries(from.leases).filter(([, of]) => of !== 'rests');
        Object.assign(data.leases, Object.fromEntries(parts));
        if (each!.complete && data.leases.X === 'K') data.leases.X = 'rests';
      }
      data.revoked ||= each!.complete;
    }
    if (rules.voids && data.token === 'unused') data.token = 'void';
    return data;
  };

  const machine = (s: State, i: 0 | 1): Step<State>[] => {
    const out: Step<State>[] = [];
    const on = (name: string, isPossible: boolean, change: (c: State) => unknown): void => {
      if (isPossible) out.push(...step(name, s, change));
    };
    const may = (kind: 'die' | 'cut'): boolean =>
      !s.quiet && s.faults > 0 && allow.includes(kind) && (kind === 'die' || i === 1);
    const m = s.m[i];
    const recalled = s.recalled[i]!;
    on(`M${i} starts again`, may('die') && !m.follows && m.run === 'memory', (c) => {
      c.faults--;
      c.m[i].run = 'fresh';
    });
    on(`M${i} is cut off`, may('cut') && m.reaches && !m.follows, (c) => {
      c.faults--;
      c.m[i].reaches = false;
    });
    on(`M${i} is back`, !m.reaches, (c) => {
      c.m[i].reaches = true;
    });
    on(`M${i} must have stopped`, !m.reaches && m.run === 'memory', (c) => {
      c.m[i].run = 'stopped';
    });
    const mayRecall = m.reaches && !s.valid && !m.follows;
    on(`M${i} begins to recall`, mayRecall && m.run === 'memory' && recalled === null, (c) => {
      c.recalled[i] = { v: rules.recalls ? m.v : 0, complete: false };
    });
    const isOwn = m.run === 'memory' && recalled !== null;
    on(`M${i} has recalled`, mayRecall && isOwn && !recalled.complete, (c) => {
      c.recalled[i]!.complete = true;
      c.told ||= c.recalled[i]!.v >= 2;
    });
    const isKept = recalled?.complete === true && rules.keeps;
    const isEmpty = recalled?.complete === true && recalled.v === 0;
    on(
      `M${i}, without a memory, has recalled`,
      mayRecall && m.run !== 'memory' && !isKept && !isEmpty,
      (c) => {
        c.recalled[i] = { v: 0, complete: true };
      }
    );
    on(`M${i} goes over`, s.valid && m.reaches && !m.follows, (c) => {
      c.m[i].follows = true;
    });
    return out;
  };

  return {
    init: {
      store: structuredClone(HISTORY[1]!),
      valid: false,
      recalled: [null, null],
      m: [newMachine(memory[0]), newMachine(memory[1])],
      told: false,
      rested: false,
      cached: memory.flatMap((v) =>
        Object.entries(HISTORY[v]!.leases).flatMap(([place, of]) =>
          of === 'rests' ? [] : [`${place} ${of}`]
        )
      ),
      faults,
      quiet: false,
    },
    bad(s) {
      if (!s.valid) return undefined;
      const { leases, revoked, token } = s.store;
      const holders = Object.values(leases).filter((of) => of !== 'rests');
      if (new Set(holders).size < holders.length) return 'a host has two addresses';
      const place = PLACES.find((each) => leases[each] === 'L');
      const others = [...s.cached, ...inUse(s)].filter((each) => each !== `${place} L`);
      if (others.some((each) => each.startsWith(`${place} `))) return `${place} is of two hosts`;
      const isKnown = s.told || s.m.some((m) => m.run === 'memory' && !m.follows);
      if (isKnown && !revoked) return 'a revocation is lost';
      return token === 'unused' ? 'a token can be used again' : undefined;
    },
    end: {
      isQuiet: (s) => s.quiet,
      isGood: (s) => s.m.every((m) => m.follows) && Object.values(s.store.leases).includes('L'),
    },
    next(s) {
      const out: Step<State>[] = [];
      const on = (name: string, isPossible: boolean, change: (c: State) => unknown): void => {
        if (isPossible) out.push(...step(name, s, change));
      };
      on('quiet', !s.quiet, (c) => {
        c.quiet = true;
      });
      for (const i of [0, 1] as const) out.push(...machine(s, i));
      const isOver = !rules.waits || areDone(s);
      on('a TTL passes', s.valid ? s.m.every((m) => m.follows) : isOver, (c) => {
        c.rested ||= areDone(s);
        c.cached = inUse(s);
      });
      const mayBegin = isOver && (!rules.ttl || !rules.waits || s.rested);
      on('the restored store comes into force', !s.valid && mayBegin, (c) => {
        c.store = merged(s);
        c.valid = true;
      });
      const isServed = Object.values(s.store.leases).includes('L');
      for (const place of PLACES) {
        const of = s.store.leases[place];
        // The rule of the horizon, see `addresses.ts`.
        const isRested =
          of === 'rests' &&
          s.m.every((m) => m.follows || m.run === 'stopped') &&
          !s.cached.some((each) => each.startsWith(`${place} `));
        on(
          `${place} is given to L`,
          s.valid && !isServed && (of === undefined || isRested),
          (c) => {
            c.store.leases[place] = 'L';
          }
        );
      }
      return out;
    },
  };
}

function newMachine(v: number): Machine {
  return { run: 'memory', v, reaches: true, follows: false };
}
