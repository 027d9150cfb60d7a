/**
 * What the package exports, name by name: who adds a name to an entry point, or removes one, does so here as well.
 */
import { existsSync, readFileSync } from 'node:fs';
import { describe, expect, test } from 'vitest';
import manifest from '../../package.json' with { type: 'json' };
import { VERSION } from '../../src/base/version.ts';
import reference from '../../typedoc.json' with { type: 'json' };
import pinned from './exports.json' with { type: 'json' };

const ENTRIES = Object.keys(manifest.exports).filter(
  // The program of a worker has no names, and ends where anything except its host loads it.
  (path) => !/json|schemas/.test(path) && path !== './worker-main'
);

describe('entry points', () => {
  test('are those of the list', () => {
    expect([...ENTRIES].sort()).toEqual(Object.keys(pinned).sort());
  });

  test.each(Object.entries(pinned))('%s has the names of the list', async (entry, names) => {
    const specifier = entry.replace(/^\./, manifest.name);
    const exported = (await import(specifier)) as Record<string, unknown>;
    expect(Object.keys(exported).sort()).toEqual(names);
  });

  test('have a page each in the reference, and a sentence each on its front page', () => {
    const files = ENTRIES.map((entry) =>
      ['', '/index']
        .map((end) => `src/${entry.slice(2)}${end}.ts`.replace('//', '/'))
        .find(existsSync)
    );
    expect([...reference.entryPoints].sort()).toEqual([...files].sort());
    const front = readFileSync(reference.readme, 'utf8');
    for (const entry of ENTRIES) {
      expect(front).toContain(`| \`${entry.replace(/^\./, manifest.name)}\` | `);
    }
  });

  test('know the version of the package', () => {
    expect(VERSION).toBe(manifest.version);
  });
});
