/**
 * Renewers and CAs on a clock that the test advances, new for each test.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { beforeEach } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import {
  type CertificateAuthority,
  CertificateRenewer,
  type CertificateRenewerOptions,
  type Credentials,
  type RenewedCertificate,
} from '../../src/pki/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { DAY_MS, newRequest, SITE_A, scene } from './fixtures.ts';

export const LIFETIME_MS: number = 30 * DAY_MS;
export const MINUTE_MS = 60_000;

/** One clock for the CA, the renewer and its timers; whole seconds, like the times in certificates. */
export const clock: FakeClock = new FakeClock({ wallMs: Math.floor(Date.now() / 1000) * 1000 });
export const now = (): number => clock.wallMs();

/** The same clock with another time of day. */
export function ahead(ms: () => number): Clock {
  return {
    wallMs: () => clock.wallMs() + ms(),
    monotonicMs: () => clock.monotonicMs(),
    after: (delayMs, callback) => clock.after(delayMs, callback),
  };
}

export let authority: CertificateAuthority;
export let other: CertificateAuthority;
let renewers: CertificateRenewer[] = [];
beforeEach(async () => {
  for (const renewer of renewers) void renewer.close();
  renewers = [];
  ({ authority } = await scene({ clock, certificateLifetimeMs: LIFETIME_MS }));
  ({ authority: other } = await scene({ clock }));
});

export async function enrolled(lifetimeMs: number = LIFETIME_MS): Promise<Credentials> {
  const { privateKeyPem, csrPem } = newRequest();
  const { certificatePem } = await authority.issue(csrPem, SITE_A, { lifetimeMs });
  return { key: privateKeyPem, cert: certificatePem, ca: authority.certificatePem };
}

/** The part of the credentials that a renewal returns. */
export function answerOf({ cert, ca }: Credentials): RenewedCertificate {
  return { certificatePem: cert, caPem: ca };
}

/** The answer of the cloud to an edge that presents `credentials`. */
export async function renewed({ cert }: Credentials, csrPem: string): Promise<RenewedCertificate> {
  const next = await authority.renew(new X509Certificate(cert), csrPem);
  return { certificatePem: next.certificatePem, caPem: authority.certificatePem };
}

export interface Trial {
  readonly renewer: CertificateRenewer;
  readonly credentials: Credentials;
  /** In order: the calls of `renew` and `apply`, and the events with their payload. */
  readonly log: string[];
  readonly applied: Credentials[];
}

/** A renewer without randomness, unless `options` say otherwise. */
export async function trial(
  options: Partial<CertificateRenewerOptions> = {},
  lifetimeMs?: number
): Promise<Trial> {
  const credentials = options.credentials ?? (await enrolled(lifetimeMs));
  const log: string[] = [];
  const applied: Credentials[] = [];
  const renew = options.renew ?? ((csrPem) => renewed(renewer.credentials, csrPem));
  const renewer: CertificateRenewer = new CertificateRenewer({
    clock,
    random: () => 0,
    ...options,
    credentials,
    renew: (csrPem) => {
      log.push('renew');
      return renew(csrPem);
    },
    apply: async (it) => {
      log.push('apply');
      await options.apply?.(it);
      applied.push(it);
    },
  });
  renewers.push(renewer);
  renewer.on('renewed', () => log.push('renewed'));
  renewer.on('problem', ({ error, retryInMs }) =>
    log.push(`failed: ${error.message}, again in ${retryInMs}`)
  );
  renewer.on('expired', ({ notAfter }) =>
    log.push(`expired ${notAfter.getTime() === notAfterOf(credentials)}`)
  );
  renewer.on('state', ({ state }) => log.push(state));
  return { renewer, credentials, log, applied };
}

function leafOf({ cert }: Credentials): X509Certificate {
  return new X509Certificate(cert);
}

function notAfterOf(credentials: Credentials): number {
  return Date.parse(leafOf(credentials).validTo);
}

/** When the certificate is due without randomness, by the clock. */
export function dueIn(credentials: Credentials): number {
  const { validFrom, validTo } = leafOf(credentials);
  const [from, to] = [Date.parse(validFrom), Date.parse(validTo)];
  return from + ((to - from) * 2) / 3 - now();
}

/** Advances the clock in steps, and waits for what it starts. */
export async function pass(ms: number): Promise<void> {
  clock.advance(ms);
  for (let turn = 0; turn < 4; turn++) await new Promise((resolve) => setImmediate(resolve));
}

export const offline = (): Promise<never> => Promise.reject(new Error('no tunnel'));

/** A trial whose authority answers when the test tells it to. */
export async function heldTrial(
  options: Pick<CertificateRenewerOptions, 'apply'> | undefined = undefined
): Promise<Trial & { readonly answers: readonly (() => void)[] }> {
  const answers: (() => void)[] = [];
  const held: Trial = await trial({
    ...options,
    renew: async (csrPem) => {
      const answer = await renewed(held.renewer.credentials, csrPem);
      await new Promise<void>((resolve) => answers.push(resolve));
      return answer;
    },
  });
  return { ...held, answers };
}
