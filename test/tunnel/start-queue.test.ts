/** Which connection's TLS begins next, and which one has to go. */
import { describe, expect, test } from 'vitest';
import { StartQueue } from '../../src/tunnel/start-queue.ts';
import { FakeClock } from '../support/fake-clock.ts';

interface Item {
  readonly address: string;
  readonly name: string;
}

/** Items are named by their address and a number: `a1`. */
function item(name: string): Item {
  return { address: name[0]!, name };
}

function queueOf(max: number) {
  const clock = new FakeClock();
  const begun: string[] = [];
  /** The addresses without room. */
  const full = new Set<string>();
  const queue = new StartQueue<Item>({
    max,
    clock,
    hasRoom: (address) => !full.has(address),
    begin: ({ name }) => begun.push(name),
  });
  const add = (...names: string[]) => names.map((name) => queue.add(item(name))?.name);
  return { queue, clock, begun, full, add };
}

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe('the queue of connections whose TLS is to begin', () => {
  test('begins with two in a turn of the event loop, in their order', async () => {
    const { queue, begun, add } = queueOf(100);
    const names = Array.from({ length: 50 }, (_, i) => `a${i}`);
    add(...names);
    for (let turns = 1; turns <= 25; turns++) {
      expect(begun).toEqual(names.slice(0, 2 * turns));
      await turn();
    }
    expect(queue.size).toBe(0);
  });

  test('lets addresses take turns', async () => {
    const { begun, add } = queueOf(100);
    add('a1', 'a2', 'a3', 'a4', 'a5', 'a6', 'b1', 'b2', 'c1');
    for (let i = 0; i < 5; i++) await turn();
    expect(begun).toEqual(['a1', 'a2', 'a3', 'b1', 'c1', 'a4', 'b2', 'a5', 'a6']);
  });

  test('passes over an address without room, until a handshake ends or time has passed', async () => {
    const { queue, clock, begun, full, add } = queueOf(100);
    full.add('a');
    add('a1', 'a2', 'a3', 'b1', 'a4', 'a5');
    await turn();
    expect(begun).toEqual(['b1']);
    full.clear();
    await turn();
    expect(begun).toEqual(['b1']);
    queue.check();
    expect(begun).toEqual(['b1', 'a1', 'a2']);
    full.add('a');
    await turn();
    clock.advance(99);
    full.clear();
    await turn();
    expect(begun).toHaveLength(3);
    clock.advance(1);
    await turn();
    expect(begun).toEqual(['b1', 'a1', 'a2', 'a3', 'a4', 'a5']);
    expect(clock.delays).toEqual([]);
  });

  test('that is full gives up the newest one of the address with most', () => {
    const { queue, full, add } = queueOf(4);
    full.add('a').add('b').add('c');
    expect(add('a1', 'a2', 'a3', 'b1')).toEqual(Array(4).fill(undefined));
    expect(add('a4', 'b2', 'b3', 'c1', 'c2')).toEqual(['a4', 'a3', 'b3', 'a2', 'c2']);
    expect(queue.size).toBe(4);
  });

  test('begins with one after the other, also if a beginning ends another handshake', () => {
    const steps: string[] = [];
    let isOpen = false;
    const queue: StartQueue<Item> = new StartQueue({
      max: 100,
      clock: new FakeClock(),
      hasRoom: () => isOpen,
      begin: ({ name }) => {
        steps.push(`from ${name}`);
        queue.check();
        steps.push(`to ${name}`);
      },
    });
    for (const name of ['a1', 'a2', 'a3']) queue.add(item(name));
    isOpen = true;
    queue.check();
    expect(steps).toEqual(['from a1', 'to a1', 'from a2', 'to a2']);
  });

  test('leaves out those that are gone', async () => {
    const { queue, begun, full } = queueOf(100);
    full.add('a');
    const items = ['a1', 'a2', 'a3'].map(item);
    for (const each of items) queue.add(each);
    queue.delete(items[1]!);
    queue.delete(items[1]!);
    expect(queue.size).toBe(2);
    full.clear();
    queue.check();
    expect(begun).toEqual(['a1', 'a3']);
  });
});
