/** The classes of these modules refuse wrong options with an error that names the option. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { AUDIT_LOG_DEFAULTS, AuditLog, AuditTrail } from '../../src/audit/index.ts';
import { ApiMisuseError, PresenceError } from '../../src/errors.ts';
import {
  CERTIFICATE_AUTHORITY_DEFAULTS,
  CERTIFICATE_RENEWER_DEFAULTS,
  CertificateAuthority,
  CertificateRenewer,
  ENROL_DEFAULTS,
  ENROLMENT_SERVER_DEFAULTS,
  EnrolmentServer,
  enrol,
  GENERATE_CA_DEFAULTS,
  generateCa,
  Revocations,
  TOKEN_DEFAULTS,
} from '../../src/pki/index.ts';
import { FILE_STORE_DEFAULTS, FileStore, MemoryStore } from '../../src/store/index.ts';
import { Revoker } from '../../src/trust/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { newRequest, SITE_A, scene, TRUST_DOMAIN } from './fixtures.ts';

type Options = Readonly<Record<string, unknown>>;

/** Values of types that only a few options accept. */
const ODD_VALUES: readonly unknown[] = [null, 'x', -1, Number.NaN, [], {}, true, Symbol('s'), 1n];
const isOneOf =
  (...kinds: readonly unknown[]) =>
  (value: unknown): boolean =>
    kinds.includes(value) || kinds.includes(typeof value);
/** For each class: how it is made, valid options, and which of the odd values an option accepts. */
const nothing = (): boolean => false;

const path = join(tmpdir(), 'no-such-directory', 'file');
const { authority } = await scene();
const material = generateCa({ trustDomain: TRUST_DOMAIN });
const { privateKeyPem, csrPem } = newRequest();
const { certificatePem } = await authority.issue(csrPem, SITE_A);
const credentials = { key: privateKeyPem, cert: certificatePem, ca: authority.trustBundlePem };
const token = await authority.createToken({ site: 'site-a', endpoints: ['https://192.0.2.1:1'] });
const never = (): Promise<never> => new Promise(() => {});

const CLASSES: readonly [
  string,
  (options: never) => unknown,
  Options,
  Readonly<Record<string, (value: unknown) => boolean>>,
][] = [
  [
    'EnrolmentServer',
    (options) => new EnrolmentServer(options),
    { authority },
    {
      authority: nothing,
      maxPending: isOneOf('symbol'),
      maxRate: isOneOf('symbol', 'bigint'),
      burst: isOneOf('symbol'),
      maxRedemptions: nothing,
      maxBodyBytes: nothing,
      timeoutMs: nothing,
      certificateLifetimeMs: nothing,
      tunnels: nothing,
      authorize: nothing,
      clock: nothing,
    },
  ],
  [
    'CertificateAuthority.open',
    (options) => CertificateAuthority.open(options),
    { trustDomain: TRUST_DOMAIN, store: new MemoryStore(), ...material },
    {
      trustDomain: isOneOf('x'),
      store: nothing,
      certificatePem: nothing,
      privateKeyPem: nothing,
      passphrase: isOneOf('string'),
      next: nothing,
      previous: nothing,
      certificateLifetimeMs: nothing,
      crlLifetimeMs: nothing,
      clock: nothing,
    },
  ],
  [
    'generateCa',
    (options) => generateCa(options),
    { trustDomain: TRUST_DOMAIN },
    {
      trustDomain: isOneOf('x'),
      keyType: nothing,
      intermediate: isOneOf(true),
      rootLifetimeMs: nothing,
      intermediateLifetimeMs: nothing,
      clock: nothing,
    },
  ],
  [
    'createToken',
    (options) => authority.createToken(options),
    { site: 'site-a', endpoints: ['https://192.0.2.1'] },
    { site: isOneOf('x'), endpoints: nothing, lifetimeMs: nothing },
  ],
  [
    'enrol',
    (options) => enrol(token, { timeoutMs: 1, ...(options as Options) } as never),
    {},
    { timeoutMs: nothing, proxy: nothing, signal: nothing, privateKeyPem: nothing, clock: nothing },
  ],
  [
    'CertificateRenewer',
    (options) => new CertificateRenewer(options),
    { credentials, renew: never, apply: () => {}, clock: new FakeClock() },
    {
      credentials: nothing,
      renew: nothing,
      apply: nothing,
      newKey: isOneOf(true),
      timeoutMs: nothing,
      random: nothing,
      clock: nothing,
    },
  ],
  [
    'Revocations.open',
    (options) => Revocations.open(options),
    { store: new MemoryStore() },
    { store: nothing, clock: nothing },
  ],
  [
    'Revoker',
    (options) => new Revoker(options),
    {
      revocations: authority.revocations,
      controller: { suspend: () => {} },
      terminateRevoked: never,
    },
    { revocations: nothing, controller: nothing, terminateRevoked: nothing, clock: nothing },
  ],
  [
    'AuditLog.open',
    (options) => AuditLog.open(options),
    { path },
    {
      path: isOneOf('string'),
      maxRefusalsPerMinute: nothing,
      maxSiteRefusalsPerMinute: nothing,
      clock: nothing,
    },
  ],
  ['AuditTrail.open', (options) => AuditTrail.open(options), { path }, { clock: nothing }],
  [
    'FileStore.open',
    (options) => FileStore.open(options),
    { path },
    { path: isOneOf('string'), compactAboveBytes: nothing, compactRatio: nothing },
  ],
];

/** Returns the error that `make` throws or rejects with. */
async function faultOf(make: () => unknown): Promise<unknown> {
  try {
    await make();
    return undefined;
  } catch (error) {
    return error;
  }
}

describe.each(CLASSES)('%s', (_, make, good, options) => {
  test.each(Object.keys(options))(
    'refuses each wrong value of %s and names the option',
    async (name) => {
      for (const value of ODD_VALUES) {
        if (options[name]!(value)) continue;
        const error = await faultOf(() => make({ ...good, [name]: value } as never));
        expect(error, `${String(value)}: ${error}`).toBeInstanceOf(PresenceError);
        // Errors about a certificate, key or domain describe the value and not the option.
        if (error instanceof ApiMisuseError) expect(error.message).toContain(name);
        else expect((error as PresenceError).code).toMatch(/CERTIFICATE|CONFIG/);
      }
    }
  );

  test.each([[undefined], [null], ['x'], [7], [[]]])('refuses the options %j', async (wrong) => {
    if (_ === 'enrol') return;
    expect(await faultOf(() => make(wrong as never))).toBeInstanceOf(ApiMisuseError);
  });
});

test.each([[undefined], [null], [7], [{}], ['']])('enrol refuses the token %j', async (wrong) => {
  expect(await faultOf(() => enrol(wrong as never))).toMatchObject({
    code: 'ERR_PRESENCE_ENROLMENT_MALFORMED',
  });
});

test.each([[null], ['x'], [[]]])('enrol refuses the options %j', async (wrong) => {
  expect(await faultOf(() => enrol(token, wrong as never))).toBeInstanceOf(ApiMisuseError);
});

test.each(
  Object.entries({
    CERTIFICATE_AUTHORITY_DEFAULTS,
    CERTIFICATE_RENEWER_DEFAULTS,
    ENROL_DEFAULTS,
    ENROLMENT_SERVER_DEFAULTS,
    FILE_STORE_DEFAULTS,
    GENERATE_CA_DEFAULTS,
    AUDIT_LOG_DEFAULTS,
    TOKEN_DEFAULTS,
  })
)('%s cannot be changed', (_, defaults) => {
  expect(Object.isFrozen(defaults)).toBe(true);
  expect(Object.values(defaults)).not.toContain(undefined);
});
