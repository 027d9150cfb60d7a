/**
 * Bundles of the gateways with changes of single lines, by which the fault run is shown to find what it is for. No product
 * has them: the sources are changed while they are bundled, and a line that is not there any more fails the bundling.
 * @module
 */
import { readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import type { Plugin } from 'esbuild';

/** A text of a file of `src`, which occurs once, and what takes its place. */
export interface Edit {
  readonly file: string;
  readonly from: string;
  readonly to: string;
}

/** The audit that compares what is in force with a full derivation begins every second, in place of every minute. */
export const AUDIT_EVERY_SECOND: readonly Edit[] = [
  { file: 'src/control/controller-options.ts', from: 'auditMs: 60_000', to: 'auditMs: 1000' },
];

/** What is broken on purpose, and what the run says then. */
export const MUTATIONS: Readonly<
  Record<string, { readonly edits: readonly Edit[]; readonly finds: RegExp }>
> = {
  'epoch guard off': {
    edits: [
      // Leases of addresses are written by every machine that thinks it allocates, whatever the store says.
      {
        file: 'src/control/lease-journal.ts',
        from: 'await this.#store.commit(writes, this.#guards);',
        to: 'await this.#store.commit(writes);',
      },
      // A controller that is not the controller any more does not notice.
      {
        file: 'src/cluster/election.ts',
        from: 'this.#guards = version === undefined ? undefined : [{ key: CONTROLLER_KEY, version }];',
        to: 'this.#guards = version === undefined ? this.#guards : [{ key: CONTROLLER_KEY, version }];',
      },
    ],
    finds: /is given to|while no machine was the controller|is the address of|[2-9] say it/,
  },
  'hand-over without the deletion of the key': {
    edits: [
      {
        file: 'src/cluster/holder-keys.ts',
        from: 'const isFree = record === undefined || record.value.machine === this.#member.name;',
        to: 'const isFree = true;',
      },
      {
        file: 'src/cluster/site-claims.ts',
        from: 'if (holder === undefined || holder.isHere) {\n          await',
        to: 'if (holder === undefined || holder !== undefined) {\n          await',
      },
    ],
    finds: /without the deletion of the key/,
  },
  'a route left behind': {
    edits: [
      {
        file: 'src/worker/held-sites.ts',
        from: 'await this.#options.tuns.release(site);\n      await this.#terminate',
        to: 'await this.#terminate',
      },
    ],
    finds: /routes? of/,
  },
};

/** Makes the edits while esbuild reads the sources. */
export function edited(edits: readonly Edit[]): Plugin {
  const byPath = new Map<string, Edit[]>();
  for (const edit of edits) {
    const path = resolve(edit.file);
    byPath.set(path, [...(byPath.get(path) ?? []), edit]);
  }
  return {
    name: 'edits',
    setup(build) {
      const made = new Set<Edit>();
      build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const its = byPath.get(path);
        if (its === undefined) return undefined;
        let contents = readFileSync(path, 'utf8');
        for (const edit of its) {
          const { file, from, to } = edit;
          if (contents.split(from).length !== 2)
            throw new Error(`${file} does not have once: ${from}`);
          contents = contents.replace(from, () => to);
          made.add(edit);
        }
        return { contents, loader: 'ts' };
      });
      build.onEnd(() => {
        for (const edit of edits) {
          if (!made.has(edit)) throw new Error(`${edit.file} is not a part of the gateways`);
        }
      });
    },
  };
}
