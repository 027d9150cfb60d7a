/**
 * Searches the models of the protocols between several machines. Each search is done by the rules that `src/cluster`
 * follows, which must hold, and without the one rule that it is about, where a counterexample must be found.
 *
 * `npm run test:model` searches everything; `npm test` takes the smaller ones.
 */
import { describe, expect, test } from 'vitest';
import { type AddressRules, type AddressScene, addresses } from './addresses.ts';
import { type AdmissionRules, type AdmissionScene, admissions } from './admissions.ts';
import { doubt } from './doubt.ts';
import { explore, type Model } from './explore.ts';
import { type HolderRules, type HolderScene, holder } from './holder.ts';
import { type RestoreRules, type RestoreScene, restore } from './restore.ts';
import { revocation } from './revocation.ts';

const isFull = process.env.VP_FULL === '1';

function expectHolds<State>(model: Model<State>): void {
  const { kind, text } = explore(model);
  expect(text).toBe('');
  expect(kind).toBe('holds');
}

function expectCounterexample<State>(model: Model<State>, kind: 'broken' | 'stuck'): void {
  expect(explore(model)).toMatchObject({ kind });
}

describe('the holder of a site, its epoch and its route (src/cluster/site-claims.ts)', () => {
  const rules: HolderRules = {
    want: true,
    epochs: 'by store',
    handOver: 'version',
    settle: true,
    takeBack: true,
  };
  const idle = { faults: 2, idle: true, cutForGood: true } as const;
  /** What happens, in which scene, the rule that it needs (of two, either does), and what goes wrong without. */
  const searches: readonly [string, HolderScene, Partial<HolderRules>, 'broken' | 'stuck'][] = [
    [
      'the edge is cut from a worker while idle',
      { ...idle, allow: ['link', 'etcd'] },
      { want: false },
      'stuck',
    ],
    [
      'a claim in doubt is applied later',
      { ...idle, allow: ['doubt', 'lease'] },
      { want: false, settle: false },
      'stuck',
    ],
    [
      'a site is handed over to a worker that the edge cannot reach',
      { faults: 1, cutForGood: true, allow: ['drain'] },
      { want: false, settle: false },
      'stuck',
    ],
    [
      'a site is handed over, and its edge comes back to the old worker, which is cut off',
      { faults: 3, allow: ['drain', 'etcd', 'link'] },
      { handOver: 'creation' },
      'broken',
    ],
    [
      'the store is restored',
      { faults: 4, allow: ['restore', 'crash', 'lease'] },
      { epochs: 'plain' },
      'stuck',
    ],
  ];

  test.each(searches)('%s', (_, scene, draft, kind) => {
    expectHolds(holder(rules, scene));
    expectCounterexample(holder({ ...rules, ...draft }, scene), kind);
  });

  test('all faults', () => {
    const allow = ['link', 'etcd', 'lease', 'doubt', 'crash', 'drain', 'restore'] as const;
    expectHolds(holder(rules, { faults: isFull ? 4 : 2, idle: true, allow }));
  });
});

describe('an address for two hosts (src/cluster/horizon.ts)', () => {
  const rules: AddressRules = { rest: 'applied', edgeBars: true };
  const byQuarantine = { rest: 'quarantine' } as const;
  const searches: readonly [string, AddressScene, Partial<AddressRules>][] = [
    ['a machine is cut off and back', { allow: ['cut'], edge: false }, byQuarantine],
    ['a watch stalls while the lease is alive', { allow: ['stall'], edge: false }, byQuarantine],
    [
      'the clock of the next controller is ahead',
      { allow: ['controller'], skew: 3, edge: false },
      byQuarantine,
    ],
    ['the store is restored', { allow: ['restore', 'cut'], edge: false }, byQuarantine],
    ['a pool is taken out and put back', { allow: ['pool'], edge: false }, byQuarantine],
    ['an edge is away, then back', { allow: ['edge'] }, { edgeBars: false }],
  ];

  test.each(searches)('%s', (_, scene, draft) => {
    expectHolds(addresses(rules, scene));
    expectCounterexample(addresses({ ...rules, ...draft }, scene), 'broken');
  });

  test('all faults', () => {
    const allow = ['cut', 'stall', 'controller', 'restore', 'pool', 'edge'] as const;
    expectHolds(addresses(rules, { allow, skew: 3, faults: isFull ? 2 : 1 }));
  });
});

describe('admissions and the epoch of the controller (src/cluster/election.ts)', () => {
  const rules: AdmissionRules = {
    epochGuard: true,
    caughtUp: true,
    forgets: true,
    perWorker: true,
  };
  const oneAsker: AdmissionScene = { askers: 1, faults: 2 };
  const twoAskers: AdmissionScene = { askers: 2, faults: 1 };

  test('a client gets one address', () => {
    expectHolds(admissions(rules, oneAsker));
  });

  test.each<[string, Partial<AdmissionRules>]>([
    ['without the guard of the epoch', { epochGuard: false }],
    ['by a controller that begins before its watch has reached its epoch', { caughtUp: false }],
    ['by a controller that is elected again and keeps what it has not stored', { forgets: false }],
  ])('a client gets two addresses %s', (_, draft) => {
    expectCounterexample(admissions({ ...rules, ...draft }, oneAsker), 'broken');
  });

  // More than 200,000 states.
  if (isFull) {
    test('a client that asks at two workers gets its address when one of them dies', () => {
      expectHolds(admissions(rules, twoAskers));
    });

    test('a client waits for ever if two workers share one key', () => {
      expectCounterexample(admissions({ ...rules, perWorker: false }, twoAskers), 'stuck');
    });
  }
});

describe('a restored store (src/cluster/recall.ts)', () => {
  const rules: RestoreRules = {
    recalls: true,
    waits: true,
    ofMemory: true,
    ttl: true,
    newest: true,
    complete: true,
    keeps: true,
    voids: true,
  };
  const behind = { faults: 0, allow: [], memory: [3, 2] } as const;
  const same = { faults: 1, allow: ['die', 'cut'], memory: [2, 2] } as const;
  const searches: readonly [string, RestoreScene, Partial<RestoreRules>][] = [
    ['machines have later data in memory', { ...behind, memory: [2, 2] }, { recalls: false }],
    ['the memory of one of them is behind', behind, { newest: false }],
    ['a machine comes later than the others', behind, { waits: false }],
    [
      'a machine has joined since the backup',
      { ...behind, memory: [2, 3], joined: true },
      { ofMemory: false },
    ],
    ['a memory is lost', { faults: 2, allow: ['die'], memory: [2, 2] }, { ttl: false }],
    [
      'a machine ends in the middle of it',
      { ...behind, faults: 1, allow: ['die'] },
      { complete: false },
    ],
    ['a machine has recalled and starts again', { ...same, faults: 2 }, { keeps: false }],
    ['a token was used since the backup', same, { voids: false }],
  ];

  test.each(searches)('%s', (_, scene, draft) => {
    expectHolds(restore(rules, scene));
    expectCounterexample(restore({ ...rules, ...draft }, scene), 'broken');
  });

  test('all faults', () => {
    expectHolds(restore(rules, { faults: 4, allow: ['die', 'cut'], memory: [3, 2] }));
  });
});

test('no packet passes after a revocation while a machine joins, if it registers first', () => {
  expectHolds(revocation({ registerFirst: true }));
  expectCounterexample(revocation({ registerFirst: false }), 'broken');
});

test('a commit in doubt is reported truthfully if the fence is written before it is looked up', () => {
  expectHolds(doubt({ fence: true }));
  expectCounterexample(doubt({ fence: false }), 'broken');
});
