/** Authorities of several machines with one CA, on one store that takes few writes at once. */
import { X509Certificate } from 'node:crypto';
import { describe, expect, test } from 'vitest';
import { CertificateError, EnrolmentError, StoreError } from '../../src/errors.ts';
import { CertificateAuthority, generateCa } from '../../src/pki/index.ts';
import { MemoryStore, type Write } from '../../src/store/index.ts';
import { clockOf } from '../support/clock-of.ts';
import { DAY_MS, HOUR_MS, newRequest, redemptionOf, SITE_A, TRUST_DOMAIN } from './fixtures.ts';

const ENDPOINTS = ['https://192.0.2.1:7444'];
const MAX_WRITES = 7;

class SharedStore extends MemoryStore {
  readonly maxWrites: number = MAX_WRITES;
  /** Called before each commit. */
  beforeCommit: () => Promise<void> = async () => {};

  override async commit(writes: readonly Write[]): Promise<void> {
    if (writes.length > MAX_WRITES) throw new StoreError(`${writes.length} writes at once`);
    const before = this.beforeCommit;
    // What another machine does here is not interrupted again.
    this.beforeCommit = async () => {};
    await before();
    await super.commit(writes);
  }
}

interface Machine {
  readonly authority: CertificateAuthority;
  /** The clocks of this machine, in ms. */
  readonly time: { wallMs: number; monotonicMs: number };
}

async function twoMachines() {
  const store = new SharedStore();
  const ca = generateCa({ trustDomain: TRUST_DOMAIN });
  const open = async (): Promise<Machine> => {
    const time = { wallMs: Date.now(), monotonicMs: 0 };
    const clock = clockOf(
      () => time.wallMs,
      () => time.monotonicMs
    );
    const options = { trustDomain: TRUST_DOMAIN, store, clock };
    return { time, authority: await CertificateAuthority.open({ ...ca, ...options }) };
  };
  return { store, open, here: await open(), there: await open() };
}

const certificateOf = ({ certificatePem }: { readonly certificatePem: string }) =>
  new X509Certificate(certificatePem);

async function refusalOf(work: Promise<unknown>): Promise<unknown> {
  return work.then(
    () => 'accepted',
    (error: unknown) => error
  );
}

describe('a token at two machines', () => {
  test('brings one certificate, also if both are asked at once', async () => {
    const { here, there } = await twoMachines();
    const token = await here.authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const results = await Promise.allSettled(
      [here, there].map(({ authority }) =>
        authority.enrol(redemptionOf(token, newRequest().csrPem))
      )
    );
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const refused = results.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(refused.reason).toBeInstanceOf(EnrolmentError);
    expect(refused.reason).toMatchObject({ fault: 'used' });
  });

  test('is void if the other machine deletes it meanwhile', async () => {
    const { store, here, there } = await twoMachines();
    const token = await here.authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    const { id } = there.authority.tokens({ limit: 10 })[0]!;
    store.beforeCommit = async () => void (await there.authority.deleteToken(id));
    const refusal = await refusalOf(here.authority.enrol(redemptionOf(token, newRequest().csrPem)));
    expect(refusal).toMatchObject({ fault: 'unknown' });
    expect(await store.list('certificate/')).toEqual([]);
  });
});

describe('a revocation on another machine', () => {
  test('of the site, before its certificate is recorded', async () => {
    const { store, here, there } = await twoMachines();
    const token = await here.authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    store.beforeCommit = async () => void (await there.authority.revoke({ site: 'site-a' }));
    const refusal = await refusalOf(here.authority.enrol(redemptionOf(token, newRequest().csrPem)));
    expect(refusal).toMatchObject({ fault: 'unknown' });
    expect(await store.list('certificate/')).toEqual([]);
  });

  test.each(['site', 'serial', 'spki'] as const)(
    'of the %s, before its next certificate is recorded',
    async (kind) => {
      const { store, here, there } = await twoMachines();
      const issued = await here.authority.issue(newRequest().csrPem, SITE_A);
      const { value } = (await store.list('certificate/'))[0]!;
      const { spkiHash } = value as { readonly spkiHash: string };
      const scope = {
        site: { site: 'site-a' },
        serial: { serial: issued.serial },
        spki: { spki: spkiHash },
      }[kind];
      store.beforeCommit = async () => void (await there.authority.revoke(scope));
      const renewed = here.authority.renew(certificateOf(issued), newRequest().csrPem);
      expect(await refusalOf(renewed)).toBeInstanceOf(CertificateError);
      expect(await store.list('certificate/')).toHaveLength(1);
      expect(here.authority.isRevoked(certificateOf(issued))).toBe(true);
    }
  );

  test('has every certificate and token that was recorded before it', async () => {
    const { store, here, there } = await twoMachines();
    const certificates = [];
    for (let i = 0; i < 20; i++) {
      const { authority } = i % 2 === 0 ? here : there;
      certificates.push(certificateOf(await authority.issue(newRequest().csrPem, SITE_A)));
    }
    for (let i = 0; i < 20; i++) {
      await there.authority.createToken({ site: 'site-a', endpoints: ENDPOINTS });
    }
    store.beforeCommit = async () => {
      certificates.push(certificateOf(await there.authority.issue(newRequest().csrPem, SITE_A)));
    };
    const report = await here.authority.revoke({ site: 'site-a' });
    expect(report.certificates).toHaveLength(21);
    expect(report.tokensVoided).toBe(20);
    expect(await store.list('token/')).toEqual([]);
    expect(certificates.every((each) => there.authority.isRevoked(each))).toBe(true);
    const listed = there.authority.revocations
      .page({ limit: 100 })
      .filter(({ key }) => key.startsWith('ser'));
    expect(listed).toHaveLength(21);
  });
});

describe('pruning', () => {
  test('on two machines at once removes each entry once, and no other', async () => {
    const { store, here, there } = await twoMachines();
    for (let i = 0; i < 20; i++) {
      await here.authority.createToken({
        site: 'site-a',
        endpoints: ENDPOINTS,
        lifetimeMs: i < 15 ? HOUR_MS : 10 * DAY_MS,
      });
    }
    for (const { time } of [here, there]) {
      time.wallMs += DAY_MS;
      time.monotonicMs += DAY_MS;
    }
    await Promise.all([here.authority.prune(), there.authority.prune()]);
    expect(await store.list('token/')).toHaveLength(5);
  });

  test('counts the time for which a machine was suspended as the others measure it', async () => {
    const { store, here, there } = await twoMachines();
    // The monotonic clock of a suspended machine stands still.
    here.time.monotonicMs += 40 * DAY_MS;
    await here.authority.prune();
    await there.authority.prune();
    await there.authority.issue(newRequest().csrPem, SITE_A, { lifetimeMs: 10 * DAY_MS });
    for (const { time } of [here, there]) {
      time.wallMs += 60 * DAY_MS;
      time.monotonicMs += HOUR_MS;
    }
    // The wall clock is wrong, and the certificate still valid: its record stays.
    await here.authority.prune();
    expect(await store.list('certificate/')).toHaveLength(1);
  });
});

describe('CRL numbers', () => {
  /** Signs a CRL, and returns its number when the store has it. */
  const numberOf = async ({ authority }: Machine, store: SharedStore): Promise<number> => {
    authority.crlPem();
    const { number } = authority.status().crl!;
    while ((await store.get('crl/number'))?.value !== number) await Promise.resolve();
    return number;
  };

  test('increase over all machines, also if a clock is behind', async () => {
    const { store, open, here, there } = await twoMachines();
    here.time.wallMs += 60_000;
    const numbers: number[] = [];
    for (const machine of [here, there, there, here, await open(), there]) {
      numbers.push(await numberOf(machine, store));
    }
    const late = await open();
    numbers.push(await numberOf(late, store));
    expect(numbers).toEqual([...new Set(numbers)].sort((a, b) => a - b));
  });

  test('are those of the clock if the store fails or has garbage', async () => {
    const { store, open, here } = await twoMachines();
    await store.commit([{ key: 'crl/number', value: 'garbage' }]);
    const late = await open();
    store.beforeCommit = () => Promise.reject(new StoreError('the store is away'));
    late.authority.crlPem();
    expect(late.authority.status().crl!.number).toBe(Math.floor(late.time.wallMs));
    await late.authority.close();
    here.time.wallMs += 1000;
    expect(await numberOf(here, store)).toBe(Math.floor(here.time.wallMs));
  });
});

test('the records of another trust domain in the store are no error, and nothing is issued for them', async () => {
  const { store, here } = await twoMachines();
  const trustDomain = 'another.test';
  const options = { trustDomain, store };
  const foreign = await CertificateAuthority.open({ ...generateCa({ trustDomain }), ...options });
  const issued = await foreign.issue(newRequest().csrPem, { ...SITE_A, trustDomain });
  const renewed = here.authority.renew(certificateOf(issued), newRequest().csrPem);
  await expect(renewed).rejects.toThrow('was not issued by this CA');
  await here.authority.prune();
  expect(await store.list('certificate/')).toHaveLength(1);
});
