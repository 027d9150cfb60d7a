/**
 * What the package exports, name by name: who adds a name to an entry point, or removes one, does so here as well.
 */
import { describe, expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { VERSION } from '../../src/version.ts';
import pinned from './exports.json' with { type: 'json' };

const ENTRIES = Object.keys(manifest.exports).filter(
  // The program of a worker has no names, and ends where it is loaded by anything but its host.
  (path) => path !== './package.json' && path !== './worker-main'
);

describe('entry points', () => {
  test('are those of the list', () => {
    expect(ENTRIES.sort()).toEqual(Object.keys(pinned).sort());
  });

  test.each(Object.entries(pinned))('%s has the names of the list', async (entry, names) => {
    const specifier = entry.replace(/^\./, manifest.name);
    const exported = (await import(specifier)) as Record<string, unknown>;
    expect(Object.keys(exported).sort()).toEqual(names);
  });

  test('know the version of the package', () => {
    expect(VERSION).toBe(manifest.version);
  });
});
