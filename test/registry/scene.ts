/**
 * A small desired state, for the tests of what exposures say.
 * @module
 */
import { expect } from 'vitest';
import type { Clock } from '../../src/base/clock.ts';
import { ConfigError, PresenceError } from '../../src/errors.ts';
import { Registry, type Touched } from '../../src/registry/index.ts';
import { MemoryStore } from '../../src/store/index.ts';

type Input = Readonly<Record<string, unknown>>;

export const site = (name: string, more: object = {}): Input => ({
  name,
  sources: ['10.0.0.0/24'],
  pools: ['10.0.0.128/25'],
  zone: `${name}.test`,
  ...more,
});

export const service = (name: string, more: object = {}): Input => ({
  name,
  site: 'cloud',
  address: '10.0.0.5',
  ports: ['tcp/5672'],
  ...more,
});

const EDGE = { tier: 'edge' };

/** The cloud with two services, and three sites of which two have the label `tier: edge`. */
export const DESIRED: { readonly sites: readonly Input[]; readonly services: readonly Input[] } = {
  sites: [
    site('cloud'),
    site('site-a', { labels: { ...EDGE, country: 'de' } }),
    site('site-b', { labels: EDGE }),
    site('site-c'),
  ],
  services: [service('mq'), service('web', { address: '10.0.0.6' })],
};

export interface Scene {
  readonly store: MemoryStore;
  readonly registry: Registry;
  /** Returns the exposures in force as `site/service`, in their order. */
  exposed(): string[];
  /** Returns the exposures that were touched since the last call, and forgets them. */
  touched(): string[];
}

/** Opens a registry with `DESIRED`, which the file keeps. */
export async function openScene(desired: object = DESIRED, clock?: Clock): Promise<Scene> {
  const store = new MemoryStore();
  const registry = await Registry.open(store, { clock });
  await registry.apply(desired, 'file');
  const keys = new Set<string>();
  registry.on('change', ({ exposures }: Touched) => {
    for (const key of exposures.keys()) keys.add(key);
  });
  const exposed = () => [...registry.exposures()].map((each) => `${each.site}/${each.service}`);
  const touched = () => {
    const all = [...keys].sort();
    keys.clear();
    return all;
  };
  return { store, registry, exposed, touched };
}

/** Expects that a write is refused with a message, and returns the place that it names. */
export async function expectFault(write: Promise<unknown>, message: string): Promise<string> {
  const fault = await write.then(
    () => new Error('was accepted'),
    (error: unknown) => error
  );
  if (!(fault instanceof PresenceError)) throw fault;
  expect(fault.message).toBe(message);
  return fault instanceof ConfigError ? fault.path : '';
}
