/**
 * Where the state of a measurement is, and the process that has it as a machine of a cloud:
 *
 * | place | is |
 * | --- | --- |
 * | `file:PATH` | a `FileStore`; the process is the whole cloud |
 * | `memory:PATH` | a copy of such a file in memory; the process is one machine of a cloud of several, and allocates |
 * | `etcd:PORT` | an etcd of this host; the same machine |
 *
 * The second and the third differ by the store alone.
 * @module
 */
import { CloseStack } from '../../src/base/close-stack.ts';
import {
  ClusterAllocation,
  Confirmations,
  Election,
  Horizon,
  Member,
} from '../../src/cluster/index.ts';
import type { Allocation } from '../../src/control/index.ts';
import { LEASE_PREFIX } from '../../src/control/stored-lease.ts';
import { EtcdStore } from '../../src/etcd/index.ts';
import { FileStore, type LeasingStore, MemoryStore, type Store } from '../../src/store/index.ts';

/** The state, open. Closing it closes what `openPlace` has opened. */
export interface Place {
  readonly store: Store;
  /** Undefined if the process is the whole cloud. */
  readonly allocation: Allocation | undefined;
  /** Undefined if the process is the whole cloud. */
  readonly member: Member | undefined;
  close(): Promise<void>;
}

/** Returns what opens a place. What has to be there before the start is measured is done when this resolves. */
export async function placeOf(text: string): Promise<() => Promise<Place>> {
  const [kind, where] = [text.slice(0, text.indexOf(':')), text.slice(text.indexOf(':') + 1)];
  if (kind === 'etcd') return () => join(() => openEtcd(Number(where)));
  if (kind === 'memory') {
    const memory = await copyOf(where);
    return () => join(async () => memory);
  }
  return async () => {
    const store = await FileStore.open({ path: where });
    return { store, allocation: undefined, member: undefined, close: () => store.close() };
  };
}

export function openEtcd(port: number): Promise<EtcdStore> {
  return EtcdStore.open({ endpoints: [`127.0.0.1:${port}`], prefix: PREFIX });
}

/** Makes this process a machine of a cloud, as a cloud gateway does, and waits until it allocates. */
async function join(open: () => Promise<LeasingStore>): Promise<Place> {
  const closing = new CloseStack();
  const store = await open();
  closing.add(() => store.close());
  const member = await Member.join({ store, machine: 'one', endpoints: [] });
  closing.add(() => member.close());
  const horizon = await Horizon.open(member, TTL_MS);
  closing.add(() => horizon.close());
  const confirmations = await Confirmations.open(member);
  closing.add(() => confirmations.close());
  const election = await Election.open(member);
  closing.add(() => election.close());
  const fail = ({ error }: { readonly error: Error }): never => {
    throw error;
  };
  member.on('problem', fail);
  confirmations.on('problem', fail);
  election.on('problem', fail);
  const allocation = new ClusterAllocation(member, election, horizon);
  await new Promise<void>((resolve) => {
    const look = (): void => {
      if (allocation.guards === undefined) return;
      stop();
      resolve();
    };
    const stop = allocation.watch(look);
    look();
  });
  return { store: member.store, allocation, member, close: () => closing.close() };
}

/**
 * Tells the others which leases are in effect here, as a cloud gateway does.
 *
 * @param settled resolves when all changes of the store so far are in effect
 */
export function followLeases(member: Member, settled: () => Promise<void>): void {
  member.leasing.watch(LEASE_PREFIX, () => {
    const { version } = member.leasing;
    void settled().then(() => member.setApplied(version));
  });
}

async function copyOf(path: string): Promise<MemoryStore> {
  const file = await FileStore.open({ path });
  const entries = await file.list('');
  const memory = new MemoryStore();
  await memory.commit(entries.map(({ key, value }) => ({ key, value })));
  await file.close();
  return memory;
}

const PREFIX = '/vp/bench/';
const TTL_MS = 30_000;
