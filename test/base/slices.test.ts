/** Long work in slices of an event loop that turns when the test says so. */
import { beforeEach, describe, expect, test } from 'vitest';
import { SliceQueue, Slices, slicesOf } from '../../src/base/slices.ts';
import { FakeClock } from '../support/fake-clock.ts';

let nowMs: number;
let deferred: (() => void)[];
let slices: Slices;
let log: string[];

/** The event loop turns: it calls what was deferred, and microtasks after each. */
async function turn(): Promise<void> {
  const due = deferred;
  deferred = [];
  for (const callback of due) {
    callback();
    await new Promise<void>((resolve) => setImmediate(resolve));
  }
}

/** Steps of 1 ms each. */
function* steps(name: string, count: number): Generator<void> {
  for (let i = 1; i <= count; i++) {
    nowMs++;
    log.push(`${name}${i}`);
    yield;
  }
}

/** Returns what was logged since the last call. */
function logged(): string {
  return log.splice(0).join(' ');
}

beforeEach(() => {
  nowMs = 1000;
  deferred = [];
  log = [];
  slices = new Slices(
    () => nowMs,
    (callback) => void deferred.push(callback)
  );
});

describe('the time of a turn', () => {
  test('begins with the first question, and is over after 3 ms', () => {
    nowMs += 50;
    expect(slices.used).toBe(0);
    nowMs += 1.5;
    expect(slices.used).toBe(0.5);
    expect(slices.isOver).toBe(false);
    nowMs += 1.5;
    expect(slices.isOver).toBe(true);
  });

  test('begins anew only after the loop has looked for packets since', async () => {
    expect(slices.used).toBe(0);
    nowMs += 3;
    await turn();
    expect(slices.isOver).toBe(true);
    await turn();
    expect(slices.isOver).toBe(false);
  });

  test('is forgotten if something else holds up the turn', () => {
    expect(slices.used).toBe(0);
    nowMs += 15;
    expect(slices.isOver).toBe(true);
    nowMs += 1;
    expect(slices.isOver).toBe(false);
  });

  test('is not given twice to one call, however long a step takes', () => {
    let taken = 0;
    const long = (function* () {
      for (; taken < 3; taken++) {
        nowMs += 20;
        yield;
      }
    })();
    expect(slices.run(long)).toBe(false);
    expect(taken).toBe(0);
    expect(slices.run(long)).toBe(false);
    expect(taken).toBe(1);
  });

  test('is one for all work with the same clock', () => {
    const clock = new FakeClock();
    expect(slicesOf(clock)).toBe(slicesOf(clock));
    expect(slicesOf(clock)).not.toBe(slicesOf(new FakeClock()));
    expect(slicesOf()).toBe(slicesOf());
  });
});

test('works that wait are continued in their order, together for the time of one turn', async () => {
  const jobs = ['a', 'b', 'c'].map((name) => steps(name, 4));
  const run = (job: Iterator<unknown>): void => {
    if (!slices.run(job)) slices.later(() => run(job));
  };
  for (const job of jobs) slices.later(() => run(job));
  const turns: string[] = [];
  while (deferred.length > 0) {
    await turn();
    turns.push(logged());
  }
  // The last step of each job is the one that finds it done.
  expect(turns.filter((each) => each !== '')).toEqual([
    'a1 a2 a3',
    'b1 b2 b3',
    'c1 c2 c3',
    'a4 b4 c4',
  ]);
});

test('a work that always takes its time holds up no other one', async () => {
  let isDone = false;
  const greedy = (): void => {
    nowMs += 10;
    if (!isDone) slices.later(greedy);
  };
  slices.later(greedy);
  await turn();
  const other = slices.next().then(() => {
    isDone = true;
  });
  for (let left = 6; left > 0; left--) await turn();
  expect(isDone).toBe(true);
  await other;
});

describe('all', () => {
  test('takes a hundred steps at once, and the rest in slices', async () => {
    const done = slices.all(steps('s', 105)).then(() => log.push('done'));
    expect(logged().split(' ')).toHaveLength(100);
    await turn();
    expect(logged()).toBe('s101 s102 s103');
    await turn();
    await turn();
    expect(logged()).toBe('s104 s105 done');
    await done;
  });

  test('rejects with what a step throws', async () => {
    function* failing(): Generator<void> {
      yield* steps('s', 104);
      throw new Error('broken');
    }
    const rejected = expect(slices.all(failing())).rejects.toThrow('broken');
    for (let left = 5; left > 0; left--) await turn();
    await rejected;
  });
});

describe('SliceQueue', () => {
  let queue: SliceQueue;

  beforeEach(() => {
    queue = new SliceQueue(slices, () => log.push('|'));
  });

  test('a short job is done at once', async () => {
    queue.add(steps('a', 2));
    expect(logged()).toBe('a1 a2 |');
    await queue.idle();
  });

  test('a job that throws ends, and those behind it go on', async () => {
    queue.add(steps('a', 102));
    queue.add(
      (function* () {
        yield;
        throw new Error('broken');
      })()
    );
    queue.add(steps('c', 2));
    const idle = queue.idle().then(() => log.push('idle'));
    let thrown = 0;
    for (let left = 8; left > 0; left--) {
      await turn().catch((error: Error) => {
        if (error.message === 'broken') thrown++;
      });
    }
    await idle;
    expect(thrown).toBe(1);
    expect(logged()).toMatch(/c1 c2 \| idle$|c2 \| idle$/);
  });

  test('jobs follow one another, and each slice is told', async () => {
    queue.add(steps('a', 102));
    queue.add(steps('b', 2));
    const idle = queue.idle().then(() => log.push('idle'));
    expect(logged()).toMatch(/a100 \|$/);
    await turn();
    await turn();
    expect(logged()).toBe('a101 a102 | b1 |');
    await turn();
    expect(logged()).toBe('b2 | idle');
    await idle;
  });
});

test('real slices let the event loop turn', async () => {
  function* untilTurn(): Generator<void> {
    let hasTurned = false;
    setImmediate(() => {
      hasTurned = true;
    });
    while (!hasTurned) yield;
  }
  await slicesOf().all(untilTurn());
});
