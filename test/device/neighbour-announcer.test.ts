/** When the announcer sends what, at interfaces that a mock replaces; `test/worker/segment.test.ts` has the real ones. */
import { beforeEach, expect, test, vi } from 'vitest';
import { IpPrefix } from '../../src/base/prefix.ts';
import { NeighbourAnnouncer } from '../../src/device/neighbour-announcer.ts';
import { EnvironmentError } from '../../src/errors.ts';
import { FakeClock } from '../support/fake-clock.ts';

const { lan } = vi.hoisted(() => ({
  lan: { sent: [] as string[], isBusy: false, isDown: false, opened: 0, closed: 0 },
}));

vi.mock('../../src/device/packet-socket.ts', () => ({
  PacketSocket: {
    open(_: unknown, name: string) {
      if (lan.isDown) throw new EnvironmentError(`interface ${name} is down`);
      lan.opened++;
      return {
        hardware: Buffer.alloc(6),
        send(frame: Buffer) {
          // The sender's address of an ARP frame.
          if (!lan.isBusy) lan.sent.push([...frame.subarray(28, 32)].join('.'));
          return !lan.isBusy;
        },
        close: () => void lan.closed++,
      };
    },
  },
}));
vi.mock('../../src/device/syscalls.ts', () => ({ loadSyscalls: async () => ({}) }));

let clock: FakeClock;
let problems: string[];
let announcer: NeighbourAnnouncer;

beforeEach(() => {
  Object.assign(lan, { isBusy: false, isDown: false, opened: 0, closed: 0 });
  lan.sent.length = 0;
  clock = new FakeClock();
  problems = [];
  const onProblem = (problem: string) => void problems.push(problem);
  announcer = new NeighbourAnnouncer({ interfaces: ['lan0'], onProblem, clock });
});

async function change(added: readonly string[], removed: readonly string[] = []): Promise<void> {
  await announcer.change(added.map(IpPrefix.parse), removed.map(IpPrefix.parse));
  // The library with the system calls is loaded.
  await new Promise(setImmediate);
}

test('announces 1,000 addresses 20 at a time, each twice, and the second time after all others', async () => {
  await change(Array.from({ length: 1000 }, (_, i) => `10.0.${i >> 8}.${i & 255}/32`));
  expect(lan.sent).toHaveLength(20);
  clock.advance(10);
  expect(lan.sent).toHaveLength(40);
  clock.advance(980);
  expect(lan.sent).toHaveLength(1000);
  expect(new Set(lan.sent).size).toBe(1000);
  clock.advance(1000);
  expect(lan.sent.slice(1000)).toEqual(lan.sent.slice(0, 1000));
  clock.advance(10_000);
  expect(lan.sent).toHaveLength(2000);
  expect(lan).toMatchObject({ opened: 1, closed: 1 });
  expect(problems).toEqual([]);
});

test('does not announce the second time what was lost in between, and begins again with what came back', async () => {
  await change(['10.0.0.1/32', '10.0.0.2/32', '10.0.0.3/32']);
  await change([], ['10.0.0.2/32']);
  await change(['10.0.0.3/32']);
  clock.advance(10_000);
  expect(lan.sent.join(' ')).toBe('10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.3 10.0.0.1 10.0.0.3');
});

test('sends again what the kernel did not take, in the same order', async () => {
  lan.isBusy = true;
  await change(['10.0.0.0/30']);
  clock.advance(100);
  expect(lan.sent).toEqual([]);
  lan.isBusy = false;
  clock.advance(10);
  expect(lan.sent).toEqual(['10.0.0.0', '10.0.0.1', '10.0.0.2', '10.0.0.3']);
});

test('reports an interface that does not work once, until it has worked', async () => {
  lan.isDown = true;
  await change(['10.0.0.1/32']);
  await change(['10.0.0.1/32']);
  expect(problems).toEqual(['interface lan0 is down']);
  lan.isDown = false;
  await change(['10.0.0.1/32']);
  expect(lan.sent).toEqual(['10.0.0.1']);
  clock.advance(10_000);
  lan.isDown = true;
  await change(['10.0.0.1/32']);
  expect(problems).toHaveLength(2);
});

test('keeps 65,536 addresses at most, and says so', async () => {
  lan.isBusy = true;
  await change(Array.from({ length: 260 }, (_, i) => `10.1.${i}.0/24`).slice(0, 256));
  expect(problems).toEqual([]);
  await change(['10.0.0.1/32']);
  expect(problems).toEqual([expect.stringMatching(/^more than 65536 addresses wait/)]);
});

test('sends nothing after close', async () => {
  await change(['10.0.0.1/32']);
  announcer.close();
  await change(['10.0.0.2/32']);
  clock.advance(10_000);
  expect(lan.sent).toEqual(['10.0.0.1']);
  expect(lan.closed).toBe(1);
});
