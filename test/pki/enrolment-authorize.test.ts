/** The option `authorize` decides which sites may enrol: over real TLS, from the token to the error that the site gets. */
import { X509Certificate } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import {
  type AuthorizeEnrolment,
  type EnrolmentOutcome,
  EnrolmentServer,
  type EnrolmentServerOptions,
  enrol,
  parseToken,
} from '../../src/pki/index.ts';
import { formatToken } from '../../src/pki/token.ts';
import { failureOf } from '../../src/tunnel/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { HOST, post, refused, serve } from './enrolment-servers.ts';
import { DAY_MS, newRequest, redemptionOf, SITE_A, scene } from './fixtures.ts';

const NOT_AUTHORIZED = 'ERR_PRESENCE_ENROLMENT_NOT_AUTHORIZED';

/** A server with `authorize`, the events it emits, and a token for it. */
async function stage(
  authorize: AuthorizeEnrolment,
  options: Partial<EnrolmentServerOptions> = {}
): Promise<{
  readonly scenery: Awaited<ReturnType<typeof scene>>;
  readonly server: EnrolmentServer;
  readonly port: number;
  readonly token: string;
  readonly outcomes: EnrolmentOutcome[];
  readonly problems: Error[];
}> {
  const scenery = await scene();
  const { server, port, endpoint } = await serve(scenery.authority, { authorize, ...options });
  const outcomes: EnrolmentOutcome[] = [];
  const problems: Error[] = [];
  server.on('outcome', (outcome) => outcomes.push(outcome));
  server.on('problem', ({ error }) => problems.push(error));
  const token = await scenery.authority.createToken({ site: 'site-a', endpoints: [endpoint] });
  return { scenery, server, port, token, outcomes, problems };
}

/** An `authorize` that answers when a test tells it to. */
class SlowHost {
  readonly answers: ((answer: string | undefined) => void)[] = [];

  readonly authorize = (): Promise<string | undefined> =>
    new Promise((resolve) => this.answers.push(resolve));

  /** Resolves when it has been called this many times. */
  asked(times: number): Promise<void> {
    return vi.waitFor(() => expect(this.answers).toHaveLength(times), { timeout: 20_000 });
  }
}

describe('authorize of EnrolmentServer', () => {
  test('is called with the site and its address, and admits it by returning undefined', async () => {
    const authorize = vi.fn(async () => undefined);
    const { token, server, outcomes, problems } = await stage(authorize);
    const { identity, cert } = await enrol(token);
    expect(identity).toEqual(SITE_A);
    expect(authorize.mock.calls).toEqual([[{ site: 'site-a', remoteAddress: HOST }]]);
    const serial = new X509Certificate(cert).serialNumber.toLowerCase();
    expect(outcomes).toEqual([{ remoteAddress: HOST, site: 'site-a', serial }]);
    expect(problems).toEqual([]);
    expect(server.counters).toMatchObject({ enrolled: 1, refused: 0 });
  });

  test.each<[string, AuthorizeEnrolment]>([
    ['a reason', () => 'rack 7 is not open yet'],
    ['the promise of a reason', async () => 'rack 7 is not open yet'],
  ])(
    'refuses the site with %s, which the site receives, and keeps the token valid',
    async (_, refuse) => {
      let answer: AuthorizeEnrolment = refuse;
      const { token, server, outcomes, problems, scenery } = await stage((it) => answer(it));
      const error = await enrol(token).catch((it) => it);
      const message = 'site "site-a" is not authorized to enrol: rack 7 is not open yet';
      expect(error).toEqual(
        expect.objectContaining({ code: NOT_AUTHORIZED, fault: 'not-authorized', message })
      );
      expect(failureOf(error)).toMatchObject({
        kind: 'refused',
        party: 'operator',
        remedy: 'report',
        error,
      });
      const refusal = { code: NOT_AUTHORIZED, message };
      expect(outcomes).toEqual([{ remoteAddress: HOST, site: 'site-a', refused: refusal }]);
      expect(problems).toEqual([]);
      expect(server.counters).toMatchObject({ enrolled: 0, refused: 1, failed: 0 });
      expect(await scenery.store.list('certificate/')).toHaveLength(1); // that of the server itself
      answer = () => undefined;
      expect((await enrol(token)).identity).toEqual(SITE_A);
    }
  );

  test.each<[string, string, string]>([
    ['nothing', '', 'site "site-a" is not authorized to enrol'],
    [
      'lines and control characters',
      'no\r\n\u001b[31mred\u2028\u0000x',
      'site "site-a" is not authorized to enrol: no [31mred x',
    ],
    [
      'half a surrogate pair',
      `${'x'.repeat(299)}\u{1f512}`,
      `site "site-a" is not authorized to enrol: ${'x'.repeat(299)}`,
    ],
    [
      'a megabyte',
      'x'.repeat(1 << 20),
      `site "site-a" is not authorized to enrol: ${'x'.repeat(300)}`,
    ],
  ])('sends a reason of %s as one printable line', async (_, reason, message) => {
    const { token } = await stage(() => reason);
    await expect(enrol(token)).rejects.toThrow(
      expect.objectContaining({ code: NOT_AUTHORIZED, message })
    );
  });

  test.each<[string, () => unknown]>([
    [
      'throws',
      () => {
        throw new Error('no inventory');
      },
    ],
    ['rejects', () => Promise.reject(new Error('no inventory'))],
    ['throws no error', () => Promise.reject('no inventory')],
    ['answers true', () => true],
    ['answers false', async () => false],
    ['answers null', () => null],
  ])('refuses the site and emits a problem when it %s', async (_, authorize) => {
    let isFaulty = true;
    const { token, outcomes, problems } = await stage((() =>
      isFaulty ? authorize() : undefined) as AuthorizeEnrolment);
    const message = 'site "site-a" is not authorized to enrol: it could not be decided';
    await expect(enrol(token)).rejects.toThrow(
      expect.objectContaining({ code: NOT_AUTHORIZED, message })
    );
    expect(problems).toHaveLength(1);
    expect(problems[0]!.message).toMatch(/no inventory|authorize must return/);
    expect(outcomes).toMatchObject([{ site: 'site-a', refused: { code: NOT_AUTHORIZED } }]);
    isFaulty = false;
    await enrol(token);
  });

  test('is not called for a request that is refused anyway', async () => {
    const authorize = vi.fn(() => undefined);
    const { token, port, scenery, server } = await stage(authorize);
    const { authority, clock } = scenery;
    const answerTo = async (redemption: object): Promise<string> =>
      (await post(port, JSON.stringify(redemption))).body.code;
    const wrong = formatToken({ ...parseToken(token), secret: 'A'.repeat(43) });
    expect(await answerTo(redemptionOf(wrong))).toBe('ERR_PRESENCE_ENROLMENT_UNKNOWN');
    expect(await answerTo(redemptionOf(token, 'x'))).toBe('ERR_PRESENCE_CERTIFICATE');
    const revokedKey = newRequest();
    const { certificatePem } = await authority.issue(revokedKey.csrPem, SITE_A);
    await authority.revoke({
      serial: new X509Certificate(certificatePem).serialNumber.toLowerCase(),
    });
    expect(await answerTo(redemptionOf(token, revokedKey.csrPem))).toBe('ERR_PRESENCE_CERTIFICATE');
    const of = { site: 'site-b', endpoints: [`https://${HOST}:${port}`] };
    const ofRevoked = await authority.createToken(of);
    await authority.revoke({ site: 'site-b' });
    expect(await answerTo(redemptionOf(ofRevoked))).toBe('ERR_PRESENCE_ENROLMENT_UNKNOWN');
    expect(authorize).not.toHaveBeenCalled();
    await enrol(token);
    expect(await answerTo(redemptionOf(token))).toBe('ERR_PRESENCE_ENROLMENT_USED');
    const expired = await authority.createToken({ ...of, site: 'site-c' });
    clock.ms += DAY_MS;
    expect(await answerTo(redemptionOf(expired))).toBe('ERR_PRESENCE_ENROLMENT_EXPIRED');
    expect(authorize).toHaveBeenCalledTimes(1);
    expect(server.counters).toMatchObject({ enrolled: 1, failed: 0 });
  });

  test('is not called by an expired CA', async () => {
    const authorize = vi.fn(() => undefined);
    const { token, port, scenery } = await stage(authorize);
    scenery.clock.ms = scenery.authority.notAfter.getTime();
    // The clocks of OpenSSL and of the site cannot be set, so the test sends the request itself.
    const token2 = await scenery.authority.createToken({
      site: 'site-a',
      endpoints: parseToken(token).endpoints,
    });
    const { body } = await post(port, JSON.stringify(redemptionOf(token2)));
    expect(body.code).toBe('ERR_PRESENCE_CERTIFICATE');
    expect(authorize).not.toHaveBeenCalled();
  });

  test('issues one certificate to two clients with the same token that wait for the decision', async () => {
    const host = new SlowHost();
    const { token, server, scenery } = await stage(host.authorize);
    const both = [enrol(token), enrol(token)].map((it) =>
      it.then(
        () => 'enrolled',
        (error) => error.code
      )
    );
    await host.asked(2);
    for (const answer of host.answers) answer(undefined);
    expect((await Promise.all(both)).sort()).toEqual(['ERR_PRESENCE_ENROLMENT_USED', 'enrolled']);
    expect(server.counters).toMatchObject({ enrolled: 1, refused: 1 });
    const issued = await scenery.store.list('certificate/');
    expect(issued).toHaveLength(2); // one is that of the server itself
  });

  test.each<[string, string, (it: Awaited<ReturnType<typeof scene>>) => Promise<unknown>]>([
    ['the site is revoked', 'UNKNOWN', ({ authority }) => authority.revoke({ site: 'site-a' })],
    ['the token expires', 'EXPIRED', async ({ clock }) => (clock.ms += DAY_MS)],
  ])('grants nothing when %s while authorize decides', async (_, code, happen) => {
    const host = new SlowHost();
    const { token, server, scenery } = await stage(host.authorize);
    const outcome = expect(enrol(token)).rejects.toThrow(refused(`ENROLMENT_${code}`));
    await host.asked(1);
    await happen(scenery);
    host.answers[0]!(undefined);
    await outcome;
    expect(server.counters).toMatchObject({ enrolled: 0, refused: 1 });
  });

  test('ends with the deadline of the request if it never answers, and the token stays valid', async () => {
    const host = new SlowHost();
    const clock = new FakeClock();
    const { token, server, outcomes, problems } = await stage(host.authorize, { clock });
    const attempt = enrol(token).catch((it) => it);
    await host.asked(1);
    clock.advance(10_000);
    expect(await attempt).toEqual(refused('ENVIRONMENT'));
    await vi.waitFor(() => expect(outcomes).toHaveLength(1), { timeout: 20_000 });
    const message =
      'site "site-a" is not authorized to enrol: the connection ended before it was decided';
    expect(outcomes[0]).toMatchObject({
      site: 'site-a',
      refused: { code: NOT_AUTHORIZED, message },
    });
    expect(problems).toEqual([]);
    expect(server.counters.timeouts).toBe(1);
    // This answer is too late.
    host.answers[0]!(undefined);
    const second = enrol(token);
    await host.asked(2);
    host.answers[1]!(undefined);
    expect((await second).identity).toEqual(SITE_A);
    expect(server.counters.enrolled).toBe(1);
  });

  test('reports a failure that comes after the site has gone', async () => {
    const fails: (() => void)[] = [];
    const { token, problems, outcomes } = await stage(
      () => new Promise((_, reject) => fails.push(() => reject(new Error('too late'))))
    );
    const controller = new AbortController();
    const attempt = enrol(token, { signal: controller.signal }).catch((it) => it);
    await vi.waitFor(() => expect(fails).toHaveLength(1), { timeout: 20_000 });
    controller.abort(new Error('enough'));
    expect((await attempt).message).toBe('enough');
    await vi.waitFor(() => expect(outcomes).toHaveLength(1), { timeout: 20_000 });
    fails[0]!();
    await vi.waitFor(() => expect(problems).toMatchObject([{ message: 'too late' }]));
  });

  test('does not delay close', async () => {
    const host = new SlowHost();
    const { token, server, scenery } = await stage(host.authorize);
    const attempt = enrol(token).catch((it) => it);
    await host.asked(1);
    await server.close();
    expect(await attempt).toEqual(refused('ENVIRONMENT'));
    expect(server.counters.enrolled).toBe(0);
    const { csrPem } = newRequest();
    const redemption = redemptionOf(token, csrPem);
    expect((await scenery.authority.enrol(redemption)).identity).toEqual(SITE_A);
  });

  test('counts towards the limit of redemptions and leaves the rest of the server free', async () => {
    const host = new SlowHost();
    const { token, server, port } = await stage(host.authorize, { maxRedemptions: 1 });
    const attempt = enrol(token);
    await host.asked(1);
    expect((await post(port, JSON.stringify(redemptionOf(token)))).status).toBe(503);
    host.answers[0]!(undefined);
    await attempt;
    expect(server.counters).toMatchObject({ busy: 1, enrolled: 1 });
  });

  test.each([null, 'yes', 1, {}, true])('must be a function, not %j', async (authorize) => {
    const { authority } = await scene();
    expect(() => new EnrolmentServer({ authority, authorize: authorize as never })).toThrow(
      refused('API_MISUSE')
    );
  });
});
