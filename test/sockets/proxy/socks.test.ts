/** The handshake of SOCKS5, as bytes in and steps out. */
import { describe, expect, test } from 'vitest';
import {
  type CredentialCheck,
  SocksHandshake,
  SocksReply,
  type SocksStep,
  socksReply,
} from '../../../src/sockets/proxy/socks.ts';
import { Random } from '../../support/random.ts';

const isValid = (username: Buffer, password: Buffer): boolean =>
  username.equals(Buffer.from('user')) && password.equals(Buffer.from('secret'));

const METHODS = Buffer.of(5, 2, 0, 2);
const CREDENTIALS = Buffer.of(1, 4, ...Buffer.from('user'), 6, ...Buffer.from('secret'));
const NAME = Buffer.of(5, 1, 0, 3, 8, ...Buffer.from('web.test'), 0x1f, 0x90);

function readAll(bytes: Buffer, check: CredentialCheck): { steps: SocksStep[]; left: Buffer } {
  const handshake = new SocksHandshake(check);
  const steps: SocksStep[] = [];
  for (;;) {
    const step = handshake.next(bytes);
    steps.push(step);
    if ('length' in step) bytes = bytes.subarray(step.length);
    if (step.kind !== 'continue') return { steps, left: bytes };
  }
}

const last = (bytes: Buffer): SocksStep => readAll(bytes, isValid).steps.at(-1)!;

describe('SocksHandshake', () => {
  test('goes from the methods over the credentials to the target, and leaves what follows', () => {
    const { steps, left } = readAll(
      Buffer.concat([METHODS, CREDENTIALS, NAME, Buffer.from('GET /')]),
      isValid
    );
    expect(steps).toEqual([
      { kind: 'continue', length: 4, reply: Buffer.of(5, 2) },
      { kind: 'continue', length: 13, reply: Buffer.of(1, 0) },
      { kind: 'connect', length: 15, target: { host: 'web.test', port: 8080 } },
    ]);
    expect(left.toString()).toBe('GET /');
  });

  test('asks for no credentials if there are none', () => {
    expect(readAll(Buffer.concat([METHODS, NAME]), undefined).steps).toEqual([
      { kind: 'continue', length: 4, reply: Buffer.of(5, 0) },
      { kind: 'connect', length: 15, target: { host: 'web.test', port: 8080 } },
    ]);
  });

  test.each([
    ['IPv4', Buffer.of(1, 10, 2, 0, 1), '10.2.0.1'],
    ['IPv6', Buffer.of(4, 0x20, 1, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1), '2001:db8::1'],
    ['an address as a name', Buffer.of(3, 8, ...Buffer.from('10.2.0.1')), '10.2.0.1'],
    ['the longest name', Buffer.of(3, 255, ...Buffer.alloc(255, 'a')), 'a'.repeat(255)],
  ])('reads %s', (_, address, host) => {
    const request = Buffer.concat([METHODS, Buffer.of(5, 1, 0), address, Buffer.of(0, 80)]);
    expect(readAll(request, undefined).steps.at(-1)).toMatchObject({ target: { host, port: 80 } });
  });

  test.each<[string, Buffer, string, Buffer]>([
    ['no method', Buffer.of(5, 0), 'malformed', Buffer.of(5, 0xff)],
    ['no method that we have', Buffer.of(5, 2, 0, 1), 'unauthenticated', Buffer.of(5, 0xff)],
    ['another version of the credentials', Buffer.of(...METHODS, 5), 'malformed', Buffer.of(1, 1)],
    [
      'a wrong password',
      Buffer.of(...METHODS, 1, 4, ...Buffer.from('user'), 1, 0x73),
      'wrongCredentials',
      Buffer.of(1, 1),
    ],
    ['empty credentials', Buffer.of(...METHODS, 1, 0, 0), 'wrongCredentials', Buffer.of(1, 1)],
  ])('refuses %s', (_, bytes, outcome, reply) => {
    expect(last(bytes)).toEqual({ kind: 'refuse', outcome, reply });
  });

  test.each<[string, number[], string, number]>([
    ['another version', [4, 1, 0, 1], 'malformed', SocksReply.GeneralFailure],
    ['a reserved byte', [5, 1, 1, 1], 'malformed', SocksReply.GeneralFailure],
    ['BIND', [5, 2, 0, 1], 'unsupported', SocksReply.CommandNotSupported],
    ['UDP ASSOCIATE', [5, 3, 0, 1], 'unsupported', SocksReply.CommandNotSupported],
    ['an unknown command', [5, 0, 0, 1], 'unsupported', SocksReply.CommandNotSupported],
    ['an unknown type', [5, 1, 0, 2], 'unsupported', SocksReply.AddressTypeNotSupported],
    ['an empty name', [5, 1, 0, 3, 0, 0, 80], 'malformed', SocksReply.GeneralFailure],
    ['a name with a zero', [5, 1, 0, 3, 2, 0x61, 0, 0, 80], 'malformed', SocksReply.GeneralFailure],
    ['a name with a space', [5, 1, 0, 3, 1, 0x20, 0, 80], 'malformed', SocksReply.GeneralFailure],
    ['a name of 8 bits', [5, 1, 0, 3, 1, 0xe4, 0, 80], 'malformed', SocksReply.GeneralFailure],
  ])('refuses a request with %s', (_, request, outcome, reply) => {
    const bytes = Buffer.of(...METHODS, ...CREDENTIALS, ...request);
    expect(last(bytes)).toEqual({ kind: 'refuse', outcome, reply: socksReply(reply) });
  });

  test('waits at every byte that is missing, and reads the same in any pieces', () => {
    const whole = Buffer.concat([METHODS, CREDENTIALS, NAME]);
    const { steps } = readAll(whole, isValid);
    for (let cut = 0; cut < whole.length; cut++) {
      const handshake = new SocksHandshake(isValid);
      const seen: SocksStep[] = [];
      let used = 0;
      for (const end of [cut, whole.length]) {
        let step = handshake.next(whole.subarray(used, end));
        for (; step.kind === 'continue'; step = handshake.next(whole.subarray(used, end))) {
          seen.push(step);
          used += step.length;
        }
        if (end === cut) expect(step.kind, `cut ${cut}`).toBe('wait');
        else seen.push(step);
      }
      expect(seen, `cut ${cut}`).toEqual(steps);
    }
  });

  test('100,000 random and mutated handshakes end, and use up no more than there is', () => {
    const seed = 20_261;
    console.info(`seed ${seed}`);
    const random = new Random(seed);
    const valid = Buffer.concat([METHODS, CREDENTIALS, NAME]);
    const kinds = new Set<string>();
    for (let run = 0; run < 100_000; run++) {
      const bytes = random.chance(0.3)
        ? Buffer.from(random.bytes(random.below(40)))
        : Buffer.from(valid.subarray(0, random.between(1, valid.length)));
      for (let i = random.below(3); i > 0; i--) {
        if (bytes.length > 0) bytes[random.below(bytes.length)] = random.below(256);
      }
      const { steps, left } = readAll(bytes, random.chance(0.5) ? isValid : undefined);
      const used = steps.reduce((sum, step) => sum + ('length' in step ? step.length : 0), 0);
      if (steps.length > 3 || used + left.length !== bytes.length) {
        expect.fail(`run ${run} of seed ${seed}: ${bytes.toString('hex')}`);
      }
      const end = steps.at(-1)!;
      kinds.add(end.kind === 'refuse' ? end.outcome : end.kind);
    }
    expect([...kinds].sort()).toEqual([
      'connect',
      'malformed',
      'unauthenticated',
      'unsupported',
      'wait',
      'wrongCredentials',
    ]);
  });
});

describe('socksReply', () => {
  test('has the local end of the connection', () => {
    expect(socksReply(0, { host: '10.1.0.1', port: 258 })).toEqual(
      Buffer.of(5, 0, 0, 1, 10, 1, 0, 1, 1, 2)
    );
    expect(socksReply(0, { host: '2001:db8::1', port: 65_535 })).toEqual(
      Buffer.of(5, 0, 0, 4, 0x20, 1, 0x0d, 0xb8, ...Buffer.alloc(11), 1, 255, 255)
    );
  });

  test('has zeros if there is none', () => {
    expect(socksReply(5)).toEqual(Buffer.of(5, 5, 0, 1, 0, 0, 0, 0, 0, 0));
  });
});
