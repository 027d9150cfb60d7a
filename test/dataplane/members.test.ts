/**
 * What the cloud gateway sets on its machine when one of its processes is started again. The processes and the
 * machine are stand-ins: what counts is the order of the calls.
 */
import { beforeEach, expect, test, vi } from 'vitest';
import { Members, type MembersOptions } from '../../examples/cloud-gateway/members.ts';
import { Placement } from '../../examples/cloud-gateway/placement.ts';

const { calls, restarts, steps } = vi.hoisted(() => ({
  calls: [] as string[],
  restarts: [] as (() => void)[],
  /** What each call of `configureTun` waits for. */
  steps: [] as Promise<void>[],
}));

vi.mock('../../examples/cloud-gateway/child-member.ts', () => ({
  ChildMember: class {
    constructor({ onRestart }: { onRestart: () => void }) {
      restarts.push(onRestart);
    }
    async open() {
      return { tunnel: { host: '127.0.0.1', port: 1 } };
    }
    refreshAccess() {}
    async close() {
      calls.push('member closed');
    }
  },
}));

vi.mock('virtual-presence', async (original) => ({
  ...(await original<typeof import('virtual-presence')>()),
  forgetRoutes: async () => {},
  changeRoutes: async () => {},
  configureTun: async () => {
    calls.push('configure');
    await steps.shift();
    calls.push('configured');
    return { problems: [], close: async () => void calls.push('undone') };
  },
}));

beforeEach(() => {
  for (const list of [calls, restarts, steps]) list.length = 0;
});

async function openMembers(): Promise<Members> {
  const device = {
    type: 'tun',
    name: 'vp0',
    routes: ['10.0.0.128/25'],
    proxyArp: [],
    lan: ['lan'],
  };
  const tunnel = { host: '127.0.0.1', port: 0 };
  const members = new Members(
    {
      config: { processes: 2, device, tunnel },
      placement: new Placement(2),
    } as unknown as MembersOptions,
    { admit: async () => {}, onTunnel: () => {}, onRefused: () => {}, log: () => {} }
  );
  await members.open();
  return members;
}

test('undoes what a restart during the shutdown is about to set', async () => {
  const members = await openMembers();
  let finish = () => {};
  steps.push(new Promise((resolve) => (finish = resolve)));
  restarts[1]!();
  await vi.waitFor(() => expect(calls).toEqual(['configure', 'configured', 'configure']));
  const closing = members.close();
  // Every step of closing that waits for nothing else is done by then.
  await new Promise((resolve) => setImmediate(resolve));
  finish();
  await closing;
  await new Promise((resolve) => setImmediate(resolve));
  expect(calls.indexOf('undone')).toBe(calls.length - 1);
});

test('sets nothing for a restart after the shutdown has begun', async () => {
  const members = await openMembers();
  const closing = members.close();
  restarts[0]!();
  await closing;
  await new Promise((resolve) => setImmediate(resolve));
  expect(calls).toEqual(['configure', 'configured', 'member closed', 'member closed', 'undone']);
});
