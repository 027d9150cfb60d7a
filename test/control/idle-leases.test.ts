/**
 * Client leases that end because nobody has used them for long, by an injected clock.
 */
import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import type { PresenceUse } from '../../src/control/index.ts';
import { startScene } from './scene.ts';

beforeEach(() => {
  vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
});
afterEach(() => {
  vi.useRealTimers();
});

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;

/** The pools of cloud.yaml; the hosts of site-a have IPv6 addresses only. */
const cloudOf = (pool: string) => ({
  sites: [
    { name: 'cloud', sources: ['10.0.0.0/24'], pools: [pool], zone: 'cloud.test' },
    { name: 'site-a', sources: ['2001:db8::/64'], pools: ['fd00::/120'], zone: 'a.test' },
    { name: 'site-b', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'b.test' },
  ],
  services: [{ name: 'rabbitmq', site: 'cloud', address: '10.0.0.5', ports: ['tcp/5672'] }],
  exposures: [
    { service: 'rabbitmq', site: 'site-a' },
    { service: 'rabbitmq', site: 'site-b' },
  ],
});

describe('a year', () => {
  test.each([
    ['10.0.0.128/25', 6, 3],
    ['10.128.0.0/16', 6, 3],
  ])(
    'in which hosts use 2,000 privacy addresses, with the cloud pool %s: never a refusal',
    async (pool, hostCount, aliveDays) => {
      const inUse = new Map<string, number>();
      const used: PresenceUse[] = [];
      const clock = { nowMs: 1_700_000_000_000 };
      const { controller, translator, problems } = await startScene(
        cloudOf(pool),
        { presenceUses: async () => used.splice(0) },
        { clock }
      );
      let made = 0;
      const refusals: string[] = [];
      // RFC 8981: a host makes a new address about every day, and goes on to use those before for some days.
      const betweenMs = (hostCount * 365 * DAY_MS) / 2000;
      for (let hour = 0; hour < 365 * 24; hour++) {
        const atMs = hour * HOUR_MS;
        while (made < 2000 && (made / hostCount) * betweenMs <= atMs) {
          const address = `2001:db8::${(0x1000 + made++).toString(16)}`;
          inUse.set(address, atMs + aliveDays * DAY_MS);
          await controller
            .admit('site-a', address, 'cloud', 4)
            .catch((error: Error) => refusals.push(`${address}: ${error.message}`));
        }
        for (const [host, endMs] of inUse) {
          if (endMs <= atMs) {
            inUse.delete(host);
            continue;
          }
          const address = translator.addressOf('cloud', 'site-a', host);
          if (address !== undefined) used.push({ realm: 'cloud', address });
        }
        clock.nowMs += HOUR_MS;
        await vi.advanceTimersByTimeAsync(HOUR_MS);
        // Who uses an address keeps it.
        for (const host of inUse.keys()) {
          if (translator.addressOf('cloud', 'site-a', host) === undefined) {
            refusals.push(`${host} has lost its address`);
          }
        }
        if (refusals.length > 0) break;
      }
      expect(refusals, `after ${made} addresses`).toEqual([]);
      expect(made).toBe(2000);
      expect(problems).toEqual([]);
    },
    120_000
  );
});
