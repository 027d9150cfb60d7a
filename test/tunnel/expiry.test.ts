/** A tunnel outlives the certificate that it came up with by a grace at most. */
import { X509Certificate } from 'node:crypto';
import { describe, expect, test, vi } from 'vitest';
import { ApiMisuseError } from '../../src/errors.ts';
import {
  CloseCode,
  type Credentials,
  type ListenOptions,
  type MtlsTunnel,
  type TunnelListener,
} from '../../src/tunnel/index.ts';
import { site } from '../support/certificates.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { ca, listen, next, pair, setUpTunnels, siteA } from './scene.ts';

setUpTunnels();

const MINUTE_MS = 60_000;
const HOUR_MS = 60 * MINUTE_MS;

function endOf({ cert }: Credentials): number {
  return Date.parse(new X509Certificate(cert).validTo);
}

/** A tunnel whose listening side has clocks of the test. */
async function clocked(
  credentials: Credentials,
  options: Partial<ListenOptions> = {}
): Promise<{
  dialled: MtlsTunnel;
  accepted: MtlsTunnel;
  listener: TunnelListener;
  clock: FakeClock;
  /** Sets the wall clock, and lets all that wait for no longer than `passMs` look at it. */
  wallIs: (ms: number, passMs?: number) => void;
}> {
  const clock = new FakeClock({ wallMs: Date.now() });
  const [dialled, accepted, listener] = await pair(
    { clock, keepaliveMs: 600_000, ...options },
    credentials
  );
  const wallIs = (ms: number, passMs = MINUTE_MS): void => {
    clock.setWall(ms - passMs);
    clock.advance(passMs);
  };
  return { dialled, accepted, listener, clock, wallIs };
}

describe('a tunnel whose certificate expires', () => {
  test.each([
    ['a minute', {}, MINUTE_MS],
    ['the grace that is given', { expiryGraceMs: 0 }, 0],
  ])('is ended %s later, and the peer learns why', async (_name, options, graceMs) => {
    const { dialled, accepted, listener, wallIs } = await clocked(siteA, options);
    const endMs = endOf(siteA) + graceMs;
    const down = next(dialled, 'down');
    wallIs(endMs - 1_000);
    expect([accepted.state, listener.counters.expired]).toEqual(['up', 0]);
    // It is not more, because the CLOSE needs real time to go out.
    wallIs(endMs, 1_000);
    expect([accepted.state, listener.counters.expired]).toEqual(['closed', 1]);
    expect((await down)[0]).toMatchObject({
      by: 'peer',
      code: CloseCode.Untrusted,
      reason: expect.stringMatching(/^the certificate expired on .* GMT$/),
    });
    expect(listener.tunnels.size).toBe(0);
  });

  test('goes on when it was renewed, until the newer one expires', async () => {
    const short = await ca.issue(site('site-a'), HOUR_MS);
    const { dialled, accepted, listener, wallIs } = await clocked(short);
    const longer = await ca.issue(site('site-a'), 2 * HOUR_MS);
    await dialled.updateCredentials(longer);
    wallIs(endOf(short) + HOUR_MS / 2);
    expect([accepted.state, listener.counters.expired]).toEqual(['up', 0]);
    wallIs(endOf(longer) + MINUTE_MS);
    expect([accepted.state, listener.counters.expired]).toEqual(['closed', 1]);
  });
});

test('no timer waits longer than Node can, and none is left when the tunnel is closed', async () => {
  const { dialled, listener, clock } = await clocked(siteA);
  expect(clock.delays).toContain(MINUTE_MS);
  await dialled.close();
  await vi.waitFor(() => expect(listener.tunnels.size).toBe(0));
  await vi.waitFor(() => expect(clock.delays).toEqual([]));
});

test.each([-1, 0.5, Number.NaN, Infinity])(
  'a listener refuses a grace of %d ms',
  async (expiryGraceMs) => {
    await expect(listen({ expiryGraceMs })).rejects.toThrow(ApiMisuseError);
  }
);
