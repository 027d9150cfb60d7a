/**
 * A clock that is fast or slow for a while, and what must nevertheless be true when it is right again.
 */
import { X509Certificate } from 'node:crypto';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { EnrolmentError } from '../../src/errors.ts';
import {
  CertificateAuthority,
  CertificateRenewer,
  generateCa,
  type IssuedCertificate,
} from '../../src/pki/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { CLOUD } from '../support/certificates.ts';
import { clockOf } from '../support/clock-of.ts';
import { DAY_MS, HOUR_MS, newRequest, redemptionOf, SITE_A, TRUST_DOMAIN } from './fixtures.ts';

const ENDPOINTS = ['https://192.0.2.1:7444'];
const LIFETIME_MS = 30 * DAY_MS;
const FAST_MS = 38 * DAY_MS;

const certificateOf = ({ certificatePem }: IssuedCertificate) =>
  new X509Certificate(certificatePem);

/** A gateway's authority over one store; its process can be restarted and its clock set. */
class Gateway {
  readonly store = new MemoryStore();
  authority!: CertificateAuthority;
  /** The true time, in ms since 1970. */
  trueMs: number = Date.now();
  /** How far the wall clock is ahead of the true time, in ms. */
  aheadMs = 0;
  #startedMs = 0;

  static async start(): Promise<Gateway> {
    const gateway = new Gateway();
    gateway.#startedMs = gateway.trueMs;
    const options = { trustDomain: TRUST_DOMAIN, ...gateway.#options() };
    gateway.authority = await CertificateAuthority.open({ ...generateCa(options), ...options });
    return gateway;
  }

  /** Restarts the process. @param downMs how long it is down */
  async restart(downMs = 0): Promise<void> {
    const { certificatePem, privateKeyPem, trustDomain } = this.authority;
    this.authority.close();
    this.trueMs += downMs;
    this.#startedMs = this.trueMs;
    const material = { certificatePem, privateKeyPem, trustDomain };
    this.authority = await CertificateAuthority.open({ ...material, ...this.#options() });
  }

  /** Lets time pass, with the hourly work of a gateway. */
  async run(ms: number): Promise<void> {
    const endMs = this.trueMs + ms;
    while (this.trueMs < endMs) {
      this.trueMs = Math.min(endMs, this.trueMs + Math.max(HOUR_MS, ms / 50));
      await this.authority.prune();
    }
  }

  issue(): Promise<IssuedCertificate> {
    return this.authority.issue(newRequest().csrPem, SITE_A);
  }

  token(): Promise<string> {
    return this.authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
  }

  async keys(prefix: string): Promise<string[]> {
    return (await this.store.list(prefix)).map(({ key }) => key.slice(prefix.length));
  }

  #options() {
    // A monotonic clock starts again with each process.
    const startedMs = this.#startedMs;
    return {
      store: this.store,
      clock: clockOf(
        () => this.trueMs + this.aheadMs,
        () => this.trueMs - startedMs
      ),
    };
  }
}

async function faultOf(redemption: Promise<unknown>): Promise<string | undefined> {
  const error = await redemption.then(
    () => undefined,
    (reason: unknown) => reason
  );
  if (error === undefined) return undefined;
  expect(error).toBeInstanceOf(EnrolmentError);
  return (error as EnrolmentError).fault;
}

/** Restarts and prunes a gateway while its clock is wrong. */
async function cleanUpWith(gateway: Gateway, aheadMs: number): Promise<void> {
  gateway.aheadMs = aheadMs;
  await gateway.authority.prune();
  await gateway.restart();
  await gateway.authority.prune();
  await gateway.run(2 * HOUR_MS);
  gateway.aheadMs = 0;
  await gateway.restart();
  await gateway.authority.prune();
}

describe('a clock that is fast once, while the store is pruned', () => {
  test.each(['serial', 'site', 'spki'] as const)('undoes no revocation by %s', async (kind) => {
    for (const aheadMs of [FAST_MS, 30 * 365 * DAY_MS]) {
      const gateway = await Gateway.start();
      const issued = await gateway.issue();
      const stolen = certificateOf(issued);
      if (kind === 'serial') await gateway.authority.revoke({ serial: issued.serial });
      else if (kind === 'site') await gateway.authority.revoke({ site: 'site-a' });
      else {
        const [record] = await gateway.store.list('certificate/');
        const { spkiHash } = record!.value as { spkiHash: string };
        await gateway.authority.revoke({ spki: spkiHash });
      }
      await cleanUpWith(gateway, aheadMs);
      await gateway.authority.reinstate('site-a');
      expect(gateway.authority.isRevoked(stolen)).toBe(true);
      const renewal = gateway.authority.renew(stolen, newRequest().csrPem);
      await expect(renewal).rejects.toThrow('is revoked');
      expect(gateway.authority.crlPem()).toMatch(/X509 CRL/);
    }
  });

  test('removes no valid certificate, so that it can be revoked by its serial number', async () => {
    const gateway = await Gateway.start();
    const issued = await gateway.issue();
    await cleanUpWith(gateway, FAST_MS);
    await gateway.authority.revoke({ serial: issued.serial });
    expect(gateway.authority.isRevoked(certificateOf(issued))).toBe(true);
  });

  test('leaves no certificate out when its site is revoked then or later', async () => {
    for (const isRevokedThen of [true, false]) {
      const gateway = await Gateway.start();
      const stolen = certificateOf(await gateway.issue());
      gateway.aheadMs = FAST_MS;
      if (isRevokedThen) await gateway.authority.revoke({ site: 'site-a' });
      await cleanUpWith(gateway, FAST_MS);
      if (!isRevokedThen) await gateway.authority.revoke({ site: 'site-a' });
      await gateway.authority.reinstate('site-a');
      expect(gateway.authority.isRevoked(stolen)).toBe(true);
    }
  });

  test('omits expired certificates from the CRL, and lists them again when the clock is right', async () => {
    const gateway = await Gateway.start();
    const { serial } = await gateway.issue();
    await gateway.authority.revoke({ serial });
    const isListed = () => {
      const base64 = gateway.authority.crlPem().replace(/-----.*-----/g, '');
      return Buffer.from(base64, 'base64').toString('hex').includes(serial);
    };
    expect(isListed()).toBe(true);
    gateway.aheadMs = 36 * DAY_MS;
    expect(isListed()).toBe(true);
    gateway.aheadMs = FAST_MS;
    expect(isListed()).toBe(false);
    await cleanUpWith(gateway, FAST_MS);
    expect(isListed()).toBe(true);
  });

  test('makes no used or expired token valid again', async () => {
    const gateway = await Gateway.start();
    const used = await gateway.token();
    await gateway.authority.enrol(redemptionOf(used));
    const unused = await gateway.token();
    await cleanUpWith(gateway, FAST_MS);
    expect(await faultOf(gateway.authority.enrol(redemptionOf(used)))).toBe('unknown');
    expect(await faultOf(gateway.authority.enrol(redemptionOf(unused)))).toBe('unknown');
  });

  test('makes no token that is valid for more than its hour, in the same process or another', async () => {
    for (const isRestarted of [false, true]) {
      const gateway = await Gateway.start();
      gateway.aheadMs = FAST_MS;
      const token = await gateway.token();
      gateway.aheadMs = 0;
      if (isRestarted) await gateway.restart();
      expect(await faultOf(gateway.authority.enrol(redemptionOf(token)))).toBe('expired');
    }
  });
});

describe('a clock that is set back', () => {
  test('makes no token valid again that has expired while the process ran', async () => {
    const gateway = await Gateway.start();
    const token = await gateway.token();
    gateway.trueMs += HOUR_MS;
    gateway.aheadMs = -HOUR_MS / 2;
    expect(await faultOf(gateway.authority.enrol(redemptionOf(token)))).toBe('expired');
    // The clock is set to before the token was made, so the token is refused too.
    gateway.aheadMs = -2 * HOUR_MS;
    const fresh = await Gateway.start();
    const other = await fresh.token();
    fresh.aheadMs = -HOUR_MS;
    expect(await faultOf(fresh.authority.enrol(redemptionOf(other)))).toBe('expired');
    fresh.aheadMs = 0;
    await fresh.authority.enrol(redemptionOf(other));
  });

  test('keeps used tokens used', async () => {
    const gateway = await Gateway.start();
    const token = await gateway.token();
    await gateway.authority.enrol(redemptionOf(token));
    await gateway.run(HOUR_MS / 2);
    gateway.aheadMs = -HOUR_MS / 2;
    await gateway.restart();
    expect(await faultOf(gateway.authority.enrol(redemptionOf(token)))).toBe('used');
  });
});

describe('a certificate from a clock that was fast', () => {
  test('is renewed by its holder as soon as the clock is right, not when it would be due', async () => {
    const gateway = await Gateway.start();
    gateway.aheadMs = FAST_MS;
    const { csrPem, privateKeyPem } = newRequest();
    const { certificatePem } = await gateway.authority.issue(csrPem, CLOUD);
    const caPem = gateway.authority.trustBundlePem;
    gateway.aheadMs = 0;
    let timerMs = 0;
    const { authority } = gateway;
    const applied: string[] = [];
    const renewer = new CertificateRenewer({
      credentials: { key: privateKeyPem, cert: certificatePem, ca: caPem },
      renew: async (request) => {
        const renewed = await authority.issue(request, CLOUD);
        return { certificatePem: renewed.certificatePem, caPem };
      },
      apply: (credentials) => {
        applied.push(credentials.cert);
      },
      clock: {
        wallMs: () => gateway.trueMs,
        monotonicMs: () => timerMs,
        after: (delayMs, callback) => {
          // Collects only what is to be done at once.
          if (delayMs === 0) queueMicrotask(callback);
          timerMs++;
          return () => {};
        },
      },
    });
    expect(renewer.state).toBe('due');
    await new Promise((resolve) => renewer.once('renewed', resolve));
    expect(renewer.state).toBe('valid');
    expect(applied).toHaveLength(1);
    expect(Date.parse(new X509Certificate(applied[0]!).validFrom)).toBeLessThan(gateway.trueMs);
    renewer.close();
  });
});

describe('records of certificates', () => {
  test('are removed when they have expired both by the clock and by the running time', async () => {
    const gateway = await Gateway.start();
    const { serial } = await gateway.issue();
    for (let day = 0; day < 30; day++) {
      await gateway.run(DAY_MS);
      await gateway.restart();
    }
    expect(await gateway.keys('certificate/')).toEqual([serial]);
    await gateway.run(2 * DAY_MS);
    expect(await gateway.keys('certificate/')).toEqual([]);
  });

  test('stay longer by the time that a gateway was down, which it cannot measure', async () => {
    const gateway = await Gateway.start();
    const { serial } = await gateway.issue();
    await gateway.run(10 * DAY_MS);
    await gateway.restart(25 * DAY_MS);
    await gateway.run(DAY_MS);
    expect(await gateway.keys('certificate/')).toEqual([serial]);
    await gateway.run(25 * DAY_MS);
    expect(await gateway.keys('certificate/')).toEqual([]);
  });

  test('stay for another lifetime if they are older than this measure', async () => {
    const gateway = await Gateway.start();
    const [entry] = await (async () => {
      await gateway.issue();
      return gateway.store.list('certificate/');
    })();
    const { recordedRunMs: _, ...old } = entry!.value as Record<string, never>;
    await gateway.store.commit([{ key: entry!.key, value: old }]);
    await cleanUpWith(gateway, FAST_MS);
    expect(await gateway.keys('certificate/')).toHaveLength(1);
    await gateway.run(32 * DAY_MS);
    expect(await gateway.keys('certificate/')).toEqual([]);
  });
});

describe('whatever the clock does', () => {
  test('revocations stay, and valid certificates can be revoked (random histories)', async () => {
    const step = fc.oneof(
      { weight: 3, arbitrary: fc.record({ run: fc.integer({ min: 1, max: 20 }) }) },
      { weight: 2, arbitrary: fc.record({ ahead: fc.integer({ min: -20_000, max: 20_000 }) }) },
      { weight: 1, arbitrary: fc.constant({ ahead: 0 }) },
      { weight: 1, arbitrary: fc.record({ down: fc.integer({ min: 0, max: 50 }) }) },
      { weight: 2, arbitrary: fc.constant({ issue: true }) },
      { weight: 2, arbitrary: fc.record({ revoke: fc.nat(5) }) },
      { weight: 1, arbitrary: fc.constant({ site: true }) }
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 25 }), async (history) => {
        const gateway = await Gateway.start();
        const endMs = gateway.trueMs + 9 * 365 * DAY_MS;
        const issued: { it: IssuedCertificate; atMs: number; isRevoked: boolean }[] = [];
        for (const each of history) {
          if ('run' in each) await gateway.run(each.run * DAY_MS);
          else if ('ahead' in each) gateway.aheadMs = each.ahead * DAY_MS;
          else if ('down' in each) await gateway.restart(each.down * DAY_MS);
          else if ('issue' in each) {
            // The clock must be right, because a wrong one gives another validity.
            const { aheadMs } = gateway;
            gateway.aheadMs = 0;
            issued.push({ it: await gateway.issue(), atMs: gateway.trueMs, isRevoked: false });
            gateway.aheadMs = aheadMs;
          } else if ('revoke' in each) {
            const one = issued[each.revoke];
            if (one === undefined || gateway.trueMs >= one.atMs + LIFETIME_MS) continue;
            await gateway.authority.revoke({ serial: one.it.serial });
            one.isRevoked = true;
          } else {
            await gateway.authority.revoke({ site: 'site-a' });
            await gateway.authority.reinstate('site-a');
            for (const one of issued) {
              if (gateway.trueMs < one.atMs + LIFETIME_MS) one.isRevoked = true;
            }
          }
          for (const one of issued) {
            if (one.isRevoked)
              expect(gateway.authority.isRevoked(certificateOf(one.it))).toBe(true);
          }
        }
        expect(gateway.trueMs).toBeLessThan(endMs);
      }),
      { numRuns: 60 }
    );
  });
});
