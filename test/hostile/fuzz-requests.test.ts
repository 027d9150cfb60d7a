/**
 * Random requests to the CA: each gets a certificate for its own key and its own site, or a
 * refusal.
 */
import { X509Certificate } from 'node:crypto';
import { expect, test } from 'vitest';
import { CertificateError, EnrolmentError } from '../../src/errors.ts';
import { parseRequest } from '../../src/pki/enrolment-message.ts';
import {
  CertificateAuthority,
  createSigningRequest,
  generateCa,
  generateGatewayKey,
  parseToken,
} from '../../src/pki/index.ts';
import { MemoryStore, type Write } from '../../src/store/index.ts';
import { check, fuzz, TIMEOUT_MS } from './fuzz-cases.ts';
import {
  type EnrolmentBody,
  pemOf,
  seedRequests,
  spoiltBody,
  spoiltRequest,
  spoiltToken,
} from './fuzz-requests.ts';

const trustDomain = 'example.org';
const identity = { trustDomain, role: 'site', site: 'site-a' } as const;

test('a signing request gets a certificate for its own key and the requested site, or none', {
  timeout: 2 * TIMEOUT_MS,
}, async () => {
  const authority = await newAuthority();
  const seeds = seedRequests();
  const issue = async (csrPem: string): Promise<string | undefined> => {
    try {
      const { certificatePem } = await authority.issue(csrPem, identity);
      const { subjectAltName, ca, publicKey } = new X509Certificate(certificatePem);
      expect(subjectAltName).toBe(`URI:spiffe://${trustDomain}/site/site-a`);
      expect(ca).toBe(false);
      return publicKey.export({ type: 'spki', format: 'pem' }).toString();
    } catch (error) {
      if (error instanceof CertificateError) return undefined;
      throw new Error(csrPem, { cause: error });
    }
  };
  const keys = new Set(await Promise.all(seeds.map((der) => issue(pemOf(der)))));
  expect([...keys].filter((key) => key !== undefined)).toHaveLength(5);

  const tally = await fuzz('signing requests', async (random) => {
    const key = await issue(spoiltRequest(random, seeds));
    if (key === undefined) return 'refused';
    // Nobody can sign for another key: an intact signature means one of the seeds.
    expect([...keys]).toContain(key);
    return 'issued';
  });
  if (process.env.VP_CASE === undefined) {
    expect(tally.refused).toBeGreaterThan(20 * (tally.issued ?? 0));
  }
});

test('a token is valid or malformed, and no error contains its secret', {
  timeout: TIMEOUT_MS,
}, async () => {
  const { token } = await newEnrolment();
  const { secret } = parseToken(token);
  const tally = await fuzz('tokens', (random) => {
    const text = random.chance(0.01) ? token : spoiltToken(random, token);
    try {
      const parsed = parseToken(text);
      const { endpoints, ...texts } = parsed;
      check(Array.isArray(endpoints), 'endpoints');
      for (const each of Object.values(texts)) check(typeof each === 'string', String(each));
      for (const endpoint of endpoints) new URL(endpoint);
      return 'a token';
    } catch (error) {
      if (!(error instanceof EnrolmentError)) throw new Error(text, { cause: error });
      check(error.fault === 'malformed', error.fault);
      check(!`${error.message}${error.cause}`.includes(secret), 'it contains the secret');
      return 'malformed';
    }
  });
  if (process.env.VP_CASE === undefined) expect(Object.keys(tally)).toHaveLength(2);
});

test('an enrolment request is granted only with the exact token, for the site of that token', {
  timeout: 2 * TIMEOUT_MS,
}, async () => {
  const seeds = seedRequests();
  let { authority, body } = await newEnrolment();
  const tally = await fuzz('enrolment requests', async (random) => {
    const text = random.chance(0.001) ? JSON.stringify(body) : spoiltBody(random, body, seeds);
    const request = parseRequest(text);
    if (request === undefined) return 'not a request';
    try {
      const issued = await authority.enrol(request);
      expect(issued.identity).toEqual(identity);
      expect([request.tokenId, request.secret]).toEqual([body.tokenId, body.secret]);
      ({ authority, body } = await newEnrolment(authority));
      return 'enrolled';
    } catch (error) {
      if (error instanceof EnrolmentError || error instanceof CertificateError) return error.code;
      throw new Error(text, { cause: error });
    }
  });
  if (process.env.VP_CASE === undefined) {
    expect(Object.keys(tally)).toEqual(
      expect.arrayContaining(['not a request', 'enrolled', 'ERR_PRESENCE_ENROLMENT_UNKNOWN'])
    );
  }
});

/** Removes the records of issued certificates, which must not count as memory that grows. */
class ForgetfulStore extends MemoryStore {
  override async commit(writes: readonly Write[]): Promise<void> {
    await super.commit(writes);
    const issued = writes.filter(({ key }) => key.startsWith('certificate/'));
    await super.commit(issued.map(({ key }) => ({ key, value: undefined })));
  }
}

function newAuthority(): Promise<CertificateAuthority> {
  return CertificateAuthority.open({
    ...generateCa({ trustDomain }),
    trustDomain,
    store: new ForgetfulStore(),
  });
}

/** Returns a valid token, and the request that redeems it. */
async function newEnrolment(
  from?: CertificateAuthority
): Promise<{ authority: CertificateAuthority; token: string; body: EnrolmentBody }> {
  const authority = from ?? (await newAuthority());
  const endpoints = ['https://192.0.2.1:7444'];
  const token = await authority.createToken({ site: 'site-a', endpoints });
  const { id: tokenId, secret } = parseToken(token);
  const csrPem = createSigningRequest(generateGatewayKey().privateKeyPem);
  return { authority, token, body: { tokenId, secret, csrPem } };
}
