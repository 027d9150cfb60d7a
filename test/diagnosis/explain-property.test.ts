/**
 * Over random worlds and flows, what the stages conclude is what the translator decides, and each fix that is a change
 * leads further than the refusal.
 */
import fc from 'fast-check';
import { afterEach, expect, test } from 'vitest';
import type { FlowExplanation, FlowProtocol } from '../../src/diagnosis/index.ts';
import { runsOf, timeoutOf } from '../support/property-runs.ts';
import { DiagnosedScene, WORLD } from './scene.ts';

const RUNS = runsOf(60);
const SITES = WORLD.sites.map(({ name }) => name);
const SERVICES = WORLD.services.map(({ name }) => name);
const HOSTS = [
  '10.0.0.1',
  '10.0.0.5',
  '10.0.0.9',
  '10.0.0.130',
  '10.9.9.9',
  '2001:db8:c::5',
  '2001:db8:c:0:1::5',
  'fd00:c::1',
];
const PORTS: readonly (readonly [FlowProtocol, number])[] = [
  ['tcp', 5672],
  ['tcp', 9696],
  ['tcp', 443],
  ['udp', 53],
  ['sctp', 443],
  ['icmp', 0],
  ['ip', 47],
  ['tcp', 1],
  ['udplite', 53],
];

const change = fc.oneof(
  fc.record({
    do: fc.constant('expose' as const),
    service: fc.constantFrom(...SERVICES),
    site: fc.constantFrom(...SITES),
    clients: fc.constantFrom(undefined, ['10.0.0.0/29'], ['10.0.0.9/32'], ['2001:db8:c::/120']),
  }),
  fc.record({
    do: fc.constant('unexpose' as const),
    service: fc.constantFrom(...SERVICES),
    site: fc.constantFrom(...SITES),
  }),
  fc.record({ do: fc.constant('suspend' as const), site: fc.constantFrom(...SITES.slice(1)) }),
  fc.record({ do: fc.constant('reinstate' as const), site: fc.constantFrom(...SITES.slice(1)) })
);
const flow = fc.record({
  site: fc.constantFrom(...SITES),
  host: fc.constantFrom(undefined, ...HOSTS),
  to: fc.oneof(
    fc.constantFrom(...SERVICES, 'nothing', 'rabbitmq.a.test'),
    fc.constantFrom('10.0.0.129', '10.0.0.130', '10.0.0.131', '10.0.0.5', 'fd00:c::1', 'fd00::1')
  ),
  port: fc.constantFrom(...PORTS),
});

const scenes: DiagnosedScene[] = [];
afterEach(async () => {
  for (const scene of scenes.splice(0)) await scene.close();
});

/** What the stages say, in the order in which the translator checks. */
function concluded({ stages, verdict }: FlowExplanation): string | undefined {
  const of = (name: string) => stages.find((stage) => stage.name === name)!;
  if (of('destination').outcome === 'no' || of('site').outcome === 'no') return 'DropNoPresence';
  if (of('source').outcome === 'no') return 'DropSpoofed';
  if (of('permission').outcome === 'no') return 'DropNotPermitted';
  // An answer needs a request, which only the translator knows.
  if (of('permission').reason.includes('answer')) return verdict;
  return of('presence').reason.includes('with its first packet') ||
    of('presence').reason.includes('gets no address')
    ? 'NeedsPresence'
    : 'Forward';
}

test(
  'the stages conclude what the translator decides',
  async () => {
    const seen = new Set<string>();
    await fc.assert(
      fc.asyncProperty(
        fc.array(change, { maxLength: 6 }),
        fc.array(flow, { minLength: 8, maxLength: 24 }),
        async (changes, flows) => {
          const scene = await DiagnosedScene.start();
          scenes.push(scene);
          for (const each of changes) {
            const { registry } = scene.scene;
            if (each.do === 'suspend' || each.do === 'reinstate') {
              scene.suspend(each.site, each.do === 'suspend');
            } else if (each.do === 'expose') {
              const { do: _, ...exposure } = each;
              await registry.expose(exposure, 'file').catch(() => {});
            } else {
              await registry.unexpose(each, 'file').catch(() => {});
            }
          }
          for (const { site, host, to, port } of flows) {
            const [protocol, number] = port;
            const query = { from: { site, address: host }, to, protocol, port: number };
            let explained = await scene.explain(query);
            if (explained.verdict === undefined) {
              expect(explained.passes).toBe(false);
              continue;
            }
            seen.add(explained.verdict);
            expect({ ...query, verdict: concluded(explained) }).toEqual({
              ...query,
              verdict: explained.verdict,
            });
            expect(explained.stages.find(({ name }) => name === 'programmed')?.outcome).toBe('ok');
            if (explained.verdict !== 'NeedsPresence' || !explained.passes) continue;
            const home = scene.scene.registry.service(SERVICES.includes(to) ? to : '')?.address;
            if (home === undefined) continue;
            await scene.admit(explained, home.family);
            explained = await scene.explain(query);
            expect({ ...query, verdict: explained.verdict }).toEqual({
              ...query,
              verdict: 'Forward',
            });
            expect(explained.stages.every(({ outcome }) => outcome === 'ok')).toBe(true);
          }
          await scenes.pop()!.close();
        }
      ),
      RUNS
    );
    // Otherwise the worlds would not be those that the test is about.
    expect([...seen].sort()).toEqual([
      'DropNoPresence',
      'DropNotPermitted',
      'DropSpoofed',
      'Forward',
      'NeedsPresence',
    ]);
  },
  timeoutOf(RUNS)
);
