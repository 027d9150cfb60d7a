/**
 * `dns.lookup` out of the zone, with the arguments, results and errors of Node's.
 */
import dns from 'node:dns';
import { promisify } from 'node:util';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import { FakeClock } from '../../support/fake-clock.ts';
import { SITE, StackNetwork } from '../stack-network.ts';
import { settled } from '../worlds.ts';

const clock = new FakeClock();
const stack = new StackNetwork(clock).stack('10.1.0.1', '2001:db8:1::1');
const lookup = stack.lookup as typeof dns.lookup;

const ask = (hostname: string, ...options: unknown[]): Promise<unknown[]> =>
  new Promise((resolve) => {
    (lookup as (...args: unknown[]) => void)(hostname, ...options, (...answer: unknown[]) =>
      resolve(answer)
    );
  });

describe('lookup', () => {
  test('answers with the first address', async () => {
    expect(await ask('both.test')).toEqual([null, '2001:db8:2::1', 6]);
    expect(await ask('both.test', {})).toEqual([null, '2001:db8:2::1', 6]);
    expect(await ask('both.test', null)).toEqual([null, '2001:db8:2::1', 6]);
  });

  test('answers with addresses of one family', async () => {
    for (const family of [4, { family: 4 }, { family: 'IPv4' }]) {
      expect(await ask('both.test', family)).toEqual([null, '10.2.0.1', 4]);
    }
  });

  test('answers with all addresses', async () => {
    const all = [
      { address: '2001:db8:2::1', family: 6 },
      { address: '10.2.0.1', family: 4 },
    ];
    expect(await ask('both.test', { all: true })).toEqual([null, all]);
    expect(await ask('both', { all: true, family: 4 })).toEqual([null, [all[1]]]);
  });

  test('answers an address with itself, whatever the family, as Node does', async () => {
    for (const address of ['192.0.2.1', '::1']) {
      const family = address.includes(':') ? 6 : 4;
      const answers = await Promise.all([ask(address, { family: 4 }), ask(address, { all: true })]);
      expect(answers[0]).toEqual([null, address, family]);
      expect(answers[1]).toEqual([null, [{ address, family }]]);
      expect(await promisify(dns.lookup)(address, { family: 4 })).toEqual({ address, family });
    }
  });

  test('answers later, in any case', async () => {
    let isAnswered = false;
    lookup('192.0.2.1', () => {
      isAnswered = true;
    });
    expect(isAnswered).toBe(false);
    await settled();
    expect(isAnswered).toBe(true);
  });

  test('fails with ENOTFOUND for other names', async () => {
    const [error, ...rest] = await ask('nova.test', { all: true });
    expect({ ...(error as Error), message: (error as Error).message }).toEqual({
      message: 'getaddrinfo ENOTFOUND nova.test',
      code: 'ENOTFOUND',
      errno: -3008,
      syscall: 'getaddrinfo',
      hostname: 'nova.test',
    });
    expect(rest).toEqual([]);
    expect((await ask('server.test', 6))[0]).toMatchObject({ code: 'ENOTFOUND' });
  });

  describe('while the tunnel is down', () => {
    beforeEach(() => {
      stack.linkChanged(false);
    });
    afterEach(() => {
      stack.setFailure(undefined, false);
      stack.linkChanged(true);
    });

    test('answers a name of the last snapshot at once', async () => {
      expect(await ask('server')).toEqual([null, '10.2.0.1', 4]);
      expect(clock.delays).toEqual([]);
    });

    test('fails with ENETDOWN for another name if the tunnel does not come up', async () => {
      const answer = ask('nova.test');
      await settled();
      clock.advance(5000);
      const [error] = await answer;
      expect(error).toMatchObject({
        message: 'getaddrinfo ENETDOWN nova.test',
        code: 'ENETDOWN',
        hostname: 'nova.test',
        cause: expect.objectContaining({ message: 'the tunnel is down' }),
      });
    });

    test('finds a name of the snapshot that comes with the tunnel', async () => {
      const answer = ask('nova.test');
      await settled();
      const host = { name: 'nova.test', addresses: ['10.2.0.9'], ports: [] };
      stack.setSite({ ...SITE, hosts: [...SITE.hosts, host] });
      stack.linkChanged(true);
      expect(await answer).toEqual([null, '10.2.0.9', 4]);
      stack.setSite(SITE);
    });

    test('fails for every name at once if waiting does not help', async () => {
      const cause = new Error('rejected');
      stack.setFailure(cause, true);
      expect((await ask('server.test'))[0]).toMatchObject({ code: 'ENETDOWN', cause });
    });
  });

  test('becomes a promise by promisify', async () => {
    const asked = promisify(lookup);
    expect(await asked('server.test')).toEqual({ address: '10.2.0.1', family: 4 });
    expect(await asked('server.test', { all: true })).toEqual([{ address: '10.2.0.1', family: 4 }]);
    await expect(asked('nova.test')).rejects.toMatchObject({ code: 'ENOTFOUND' });
  });

  // Node warns of the empty name.
  test.each([dns.lookup, lookup])(
    'calls back with as many arguments as Node has %#',
    async (call) => {
      const answer = (...args: unknown[]): Promise<unknown[]> =>
        new Promise((resolve) => {
          (call as (...args: unknown[]) => void)(...args, (...found: unknown[]) => resolve(found));
        });
      expect(await answer('192.0.2.1', { all: true })).toEqual([
        null,
        [{ address: '192.0.2.1', family: 4 }],
      ]);
      expect(await answer('192.0.2.1', { family: null, all: null, hints: null })).toEqual([
        null,
        '192.0.2.1',
        4,
      ]);
      for (const nothing of hasEmptyName(call) ? ['', null] : []) {
        expect(await answer(nothing)).toEqual([null, null, 4]);
        expect(await answer(nothing, 6)).toEqual([null, null, 6]);
        expect(await answer(nothing, { all: true })).toEqual([null, []]);
      }
      if (hasEmptyName(call)) {
        expect(await promisify(call)('')).toEqual({ address: null, family: 4 });
      }
    }
  );

  test.each([dns.lookup, lookup])('throws for wrong arguments %#', (call) => {
    const codes = [
      () => call('a.test', undefined as never),
      () => call('a.test', 5, () => {}),
      () => call('a.test', { family: 5 as never }, () => {}),
      () => call('a.test', 'IPv4' as never, () => {}),
      () => call('a.test', { all: 'yes' as never }, () => {}),
      () => call('a.test', { hints: '1' as never }, () => {}),
      () => call('a.test', { hints: 99_999 }, () => {}),
      () => call(5 as never, () => {}),
    ].map((wrong) => {
      try {
        wrong();
        return undefined;
      } catch (error) {
        return `${(error as Error).name} ${(error as NodeJS.ErrnoException).code}`;
      }
    });
    expect(codes).toEqual([
      'TypeError ERR_INVALID_ARG_TYPE',
      'TypeError ERR_INVALID_ARG_VALUE',
      'TypeError ERR_INVALID_ARG_VALUE',
      'TypeError ERR_INVALID_ARG_TYPE',
      'TypeError ERR_INVALID_ARG_TYPE',
      'TypeError ERR_INVALID_ARG_TYPE',
      'TypeError ERR_INVALID_ARG_VALUE',
      'TypeError ERR_INVALID_ARG_TYPE',
    ]);
  });
});

/** Node 26 refuses the empty name and null, which stood for nothing before. */
function hasEmptyName(call: unknown): boolean {
  return call !== dns.lookup || Number.parseInt(process.versions.node, 10) < 26;
}
