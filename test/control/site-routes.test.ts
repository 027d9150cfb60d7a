import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { type RouteChange, SiteRoutes } from '../../src/control/index.ts';
import type { PresenceInput, TranslationPlanInput } from '../../src/translator/index.ts';
import { compilePresence } from '../../src/translator/plan.ts';

function planOf(
  presences: readonly PresenceInput[],
  pools = ['10.0.0.128/25']
): TranslationPlanInput {
  return { realms: [{ name: 'cloud', sources: ['10.0.0.0/24'], pools }], presences, permits: [] };
}

function presence(address: string, site: string): PresenceInput {
  return { realm: 'cloud', address, of: { realm: site, address: `192.0.2.${address.length}` } };
}

function loaded(presences: readonly PresenceInput[], pools?: string[]): SiteRoutes {
  const routes = new SiteRoutes('cloud');
  routes.load(planOf(presences, pools));
  return routes;
}

function bind(routes: SiteRoutes, input: PresenceInput): RouteChange[] {
  return routes.apply({ presences: [compilePresence(input, () => 'presence')] });
}

describe('SiteRoutes', () => {
  test('makes one route for a block of one site, and single routes for a shared block', () => {
    const { routes } = loaded([
      presence('10.0.0.129', 'a'),
      presence('10.0.0.130', 'a'),
      presence('10.0.0.145', 'b'),
      presence('10.0.0.146', 'a'),
    ]);
    expect([...routes].sort()).toEqual([
      ['10.0.0.128/28', 'a'],
      ['10.0.0.145/32', 'b'],
      ['10.0.0.146/32', 'a'],
    ]);
  });

  test('has routes of IPv6, and no route that is larger than a pool', () => {
    const { routes } = loaded(
      [presence('10.0.0.129', 'a'), presence('2001:db8::11', 'b')],
      ['10.0.0.128/30', '2001:db8::/112']
    );
    expect([...routes]).toEqual([
      ['10.0.0.128/30', 'a'],
      ['2001:db8::10/124', 'b'],
    ]);
  });

  test('ignores presences in other realms', () => {
    const routes = loaded([{ ...presence('10.0.0.129', 'b'), realm: 'a' }]);
    expect(routes.routes.size).toBe(0);
    expect(bind(routes, { ...presence('10.0.0.129', 'b'), realm: 'a' })).toEqual([]);
  });

  test('returns what a new presence changes: nothing in a block of its site', () => {
    const routes = loaded([presence('10.0.0.129', 'a')]);
    expect(bind(routes, presence('10.0.0.130', 'a'))).toEqual([]);
    expect(bind(routes, presence('10.0.0.144', 'b'))).toEqual([
      { prefix: '10.0.0.144/28', site: 'b' },
    ]);
  });

  test('returns the new routes first when a block becomes shared', () => {
    const routes = loaded([presence('10.0.0.129', 'a')]);
    expect(bind(routes, presence('10.0.0.130', 'b'))).toEqual([
      { prefix: '10.0.0.129/32', site: 'a' },
      { prefix: '10.0.0.130/32', site: 'b' },
      { prefix: '10.0.0.128/28', site: undefined },
    ]);
  });

  test('returns what another plan changes', () => {
    const routes = loaded([presence('10.0.0.129', 'a'), presence('10.0.0.144', 'b')]);
    expect(routes.load(planOf([presence('10.0.0.129', 'b')]))).toEqual([
      { prefix: '10.0.0.128/28', site: 'b' },
      { prefix: '10.0.0.144/28', site: undefined },
    ]);
  });
});

test('every presence leads to its site, and the changes add up to the routes', () => {
  const address = fc.nat({ max: 63 }).map((host) => `10.0.0.${128 + host}`);
  const site = fc.constantFrom('a', 'b', 'c');
  const presences = fc.uniqueArray(fc.tuple(address, site), {
    minLength: 1,
    maxLength: 40,
    selector: ([text]) => text,
  });
  fc.assert(
    fc.property(presences, presences, fc.nat({ max: 40 }), (before, after, bound) => {
      const routes = new SiteRoutes('cloud');
      const kernel = new Map<string, string>();
      const take = (changes: readonly RouteChange[]) => {
        for (const { prefix, site: of } of changes) {
          if (of === undefined) kernel.delete(`${prefix}`);
          else kernel.set(`${prefix}`, of);
        }
      };
      take(routes.load(planOf(before.map(([text, of]) => presence(text, of)))));
      const inPlan = after.slice(bound);
      take(routes.load(planOf(inPlan.map(([text, of]) => presence(text, of)))));
      for (const [text, of] of after.slice(0, bound)) take(bind(routes, presence(text, of)));

      expect(kernel).toEqual(routes.routes);
      for (const [text, of] of after) {
        const found = [...kernel]
          .filter(([prefix]) => IpPrefix.parse(prefix).contains(IpAddress.parse(text)))
          .sort(([a], [b]) => IpPrefix.parse(b).length - IpPrefix.parse(a).length);
        expect(found[0]?.[1]).toBe(of);
      }
    })
  );
});
