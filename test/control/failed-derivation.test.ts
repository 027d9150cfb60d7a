/**
 * After a derivation has failed half-way, the next one takes up what is left, also what has ended meanwhile.
 */
import { expect, test } from 'vitest';
import { IpAddress } from '../../src/base/address.ts';
import { IpPrefix } from '../../src/base/prefix.ts';
import { PresenceController } from '../../src/control/index.ts';
import type { Exposure, ExposureId, Site } from '../../src/registry/index.ts';
import { PortRange } from '../../src/translator/index.ts';
import { ObservedTranslator, SceneClock, ScriptedStore } from './scene.ts';
import { SourceDouble } from './source-double.ts';

class FailingSource extends SourceDouble {
  failsAt: string | undefined;

  override exposure(id: ExposureId): Exposure | undefined {
    if (id.service === this.failsAt) throw new Error('a defect');
    return super.exposure(id);
  }
}

function siteOf(name: string, pool: string): Site {
  const limits = { maxClients: 100, maxNames: 4096, zone: 'test' };
  const sources = [IpPrefix.parse('10.0.0.0/12')];
  return { name, sources, pools: [IpPrefix.parse(pool)], reserved: [], ...limits };
}

test('what a failed derivation has left is derived by the next one, and a failure does not repeat at once', async () => {
  const source = new FailingSource();
  const services = ['a', 'b', 'c'].map((name, i) => {
    const address = IpAddress.parse(`10.0.0.${i + 1}`);
    return { name, site: 'cloud', address, ports: [PortRange.from('tcp/80', 'ports')] };
  });
  source.put([siteOf('cloud', '100.64.0.0/24'), siteOf('edge', '100.64.0.0/24')], services, [
    { service: 'a', site: 'edge', address: IpAddress.parse('100.64.0.9') },
    { service: 'b', site: 'edge' },
  ]);
  const clock = new SceneClock();
  const store = new ScriptedStore();
  const translator = new ObservedTranslator(store);
  const controller = await PresenceController.start({
    ...{ store, clock, translator, registry: source.registry },
  });
  const problems: string[] = [];
  controller.on('problem', ({ error }) => problems.push(error.message));
  await controller.admit('edge', '10.0.1.1', 'cloud', 4);

  source.failsAt = 'b';
  source.unexpose({ service: 'a', site: 'edge' });
  source.unexpose({ service: 'b', site: 'edge' });
  await controller.settled();
  expect(problems).toEqual(['a defect']);

  source.failsAt = undefined;
  source.put([], [], [{ service: 'c', site: 'edge' }]);
  await controller.settled();
  expect(problems).toHaveLength(1);
  const { permits, presences } = translator.plan;
  const hosts = (each: { realm: string; address: string }) => `${each.realm}/${each.address}`;
  expect(permits.map(({ service }) => hosts(service))).toEqual(['cloud/10.0.0.3']);
  expect(presences.map(({ of }) => hosts(of)).sort()).toEqual(['cloud/10.0.0.3', 'edge/10.0.1.1']);
  expect(controller.snapshot('edge')!.hosts.map(({ name }) => name)).toEqual(['c.test']);
  await controller.close();
});
