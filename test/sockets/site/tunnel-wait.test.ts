import { beforeEach, describe, expect, test } from 'vitest';
import { IpAddress } from '../../../src/base/address.ts';
import { TunnelWait } from '../../../src/sockets/site/tunnel-wait.ts';
import { FakeClock } from '../../support/fake-clock.ts';

describe('the wait for the tunnel', () => {
  let clock: FakeClock;
  let wait: TunnelWait;

  beforeEach(() => {
    clock = new FakeClock();
    wait = new TunnelWait(clock, 5000);
    wait.setAddress(true);
  });

  const outcomeOf = async (promise: Promise<void>): Promise<unknown> =>
    promise.then(
      () => 'up',
      (error: unknown) => error
    );

  test('is over at once while packets can flow, and sets no timer', async () => {
    await wait.whenUp();
    expect(clock.delays).toEqual([]);
  });

  test('ends when the tunnel comes up and an address is known', async () => {
    wait.setUp(false);
    wait.setAddress(false);
    const outcome = outcomeOf(wait.whenUp());
    wait.setUp(true);
    expect(clock.delays).toEqual([5000]);
    wait.setAddress(true);
    expect(await outcome).toBe('up');
    expect(clock.delays).toEqual([]);
  });

  test('to presences ends when packets flow to one of them, and fails with the reason of the first', async () => {
    const [near, far] = ['10.0.0.129', '10.0.0.130'].map((text) => IpAddress.parse(text));
    const failure = new Error('the tunnel of site-a is down');
    wait.setFailureTo((remote) => (remote.equals(near!) ? failure : undefined));
    expect(wait.canReach([near!])).toBe(false);
    expect(wait.canReach([near!, far!])).toBe(true);
    expect(wait.canReach([])).toBe(true);
    await wait.whenUp(undefined, [near!, far!]);
    const first = outcomeOf(wait.whenUp(undefined, [near!]));
    clock.advance(4999);
    wait.setFailureTo(() => undefined);
    expect(await first).toBe('up');
    wait.setFailureTo(() => failure);
    const second = outcomeOf(wait.whenUp(undefined, [near!, far!]));
    // The rest goes on.
    await wait.whenUp();
    clock.advance(5000);
    expect(await second).toMatchObject({ code: 'ENETDOWN', cause: failure });
    expect(clock.delays).toEqual([]);
  });

  test('fails with ENETDOWN after the given time, with what is known of the reason', async () => {
    wait.setUp(false);
    const silent = outcomeOf(wait.whenUp());
    clock.advance(4000);
    const failure = new Error('no tunnel, connection refused');
    wait.setFailure(failure, false);
    const second = outcomeOf(wait.whenUp());
    clock.advance(1000);
    const error = await silent;
    expect(error).toMatchObject({ code: 'ENETDOWN', syscall: 'connect', cause: failure });
    expect((error as NodeJS.ErrnoException).errno).toBeLessThan(0);
    wait.setFailure(undefined, false);
    clock.advance(4000);
    expect(await second).toMatchObject({ code: 'ENETDOWN', cause: { message: /tunnel is down/ } });
  });

  test('fails at once when waiting does not help, for those who wait and those who come', async () => {
    wait.setUp(false);
    const waiting = outcomeOf(wait.whenUp());
    const failure = new Error('the site is revoked');
    wait.setFailure(failure, true);
    for (const each of [waiting, outcomeOf(wait.whenUp())]) {
      expect(await each).toMatchObject({ code: 'ENETDOWN', cause: failure });
    }
    expect(clock.delays).toEqual([]);
    wait.setUp(true);
    expect(wait.isOpen).toBe(false);
    wait.setFailure(undefined, false);
    await wait.whenUp();
  });

  test('tells those who watch once when waiting does not help, also those who come later', () => {
    const failure = new Error('the site is revoked');
    const error = expect.objectContaining({ code: 'ENETDOWN', cause: failure });
    const told: unknown[] = [];
    const end = wait.watch(() => told.push('never'));
    wait.watch((reason) => told.push(reason));
    end();
    wait.setUp(false);
    wait.setFailure(failure, false);
    expect(told).toEqual([]);
    wait.setFailure(failure, true);
    wait.setUp(true);
    expect(told).toEqual([error]);
    wait.watch((reason) => told.push(reason));
    expect(told).toEqual([error, error]);
  });

  test('tells those who watch when packets have not flowed for the wait, with one timer', () => {
    const told: unknown[] = [];
    const ends = [1, 2, 3].map(() => wait.watch((reason) => told.push(reason)));
    expect(clock.delays).toEqual([]);
    wait.setUp(false);
    wait.setFailure(new Error('no tunnel'), false);
    expect(clock.delays).toEqual([5000]);
    clock.advance(4999);
    wait.setUp(true);
    expect(clock.delays).toEqual([]);
    wait.setAddress(false);
    clock.advance(4999);
    ends[0]!();
    expect(told).toEqual([]);
    clock.advance(1);
    expect(told).toEqual(Array(2).fill(expect.objectContaining({ code: 'ENETDOWN' })));
    wait.watch(() => told.push('never'))();
    expect(clock.delays).toEqual([]);
  });

  test('tells those who watch when packets have not flowed to their presences for the wait', () => {
    const [near, far] = ['10.0.0.129', '10.0.0.130'].map((text) => IpAddress.parse(text));
    const failure = new Error('the tunnel of site-a is down');
    const fail = (): void => {
      wait.setFailureTo((remote) => (remote.equals(near!) ? failure : undefined));
    };
    const told: unknown[] = [];
    const [both, one] = [[near!, far!], [near!]];
    wait.watch(
      () => told.push('never'),
      () => both
    );
    const end = wait.watch(
      () => told.push('never'),
      () => one
    );
    wait.watch(
      (reason) => told.push(reason),
      () => one
    );
    fail();
    expect(clock.delays).toEqual([5000, 5000]);
    end();
    clock.advance(4999);
    wait.setFailureTo(() => undefined);
    expect(clock.delays).toEqual([]);
    fail();
    clock.advance(4999);
    // Somebody else's tunnel.
    fail();
    expect(told).toEqual([]);
    clock.advance(1);
    expect(told).toEqual([expect.objectContaining({ code: 'ENETDOWN', cause: failure })]);
    expect(clock.delays).toEqual([]);
  });

  test('ends with an AbortError when the signal is aborted, before the call or during it', async () => {
    wait.setUp(false);
    const controller = new AbortController();
    const outcome = outcomeOf(wait.whenUp(controller.signal));
    controller.abort('no longer needed');
    const expected = { name: 'AbortError', code: 'ABORT_ERR', cause: 'no longer needed' };
    expect(await outcome).toMatchObject(expected);
    wait.setUp(true);
    expect(await outcomeOf(wait.whenUp(controller.signal))).toMatchObject(expected);
    expect(clock.delays).toEqual([]);
  });
});
