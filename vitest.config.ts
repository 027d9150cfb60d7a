import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { defineConfig, type ViteUserConfig } from 'vitest/config';
import { LongestFirst } from './test/longest-first.ts';
import { patternsOf, projects } from './test/projects.ts';

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

const alias = [
  { find: /^virtual-presence$/, replacement: source('src/index.ts') },
  { find: /^virtual-presence\/errors$/, replacement: source('src/errors.ts') },
  { find: /^virtual-presence\/(.*)$/, replacement: source('src/$1/index.ts') },
];

const setupFiles = [source('test/support/patience.ts'), source('test/support/value-equality.ts')];

/** For the projects that start gateways. */
const globalSetup = source('test/support/bundle.ts');

/** For tests that wait for programs, and for time to pass, about as long as they compute. */
const WAITING_WORKERS = Math.ceil(1.5 * availableParallelism());

const { modules, programs, timed, hostile } = projects;

const config: ViteUserConfig = defineConfig({
  test: {
    // Vitest leaves one core free by itself, which is half of a machine with two.
    maxWorkers: '100%',
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        resolve: { alias },
        test: {
          name: 'quick',
          setupFiles,
          include: ['test/**/*.test.ts'],
          exclude: patternsOf(Object.values(projects).flat()),
          // The files share the modules that they load: it halves the time.
          isolate: false,
          testTimeout: 60_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        resolve: { alias },
        test: {
          name: 'modules',
          setupFiles,
          include: patternsOf(modules),
          exclude: patternsOf([...programs, ...timed]),
          testTimeout: 60_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        resolve: { alias },
        test: {
          name: 'programs',
          globalSetup,
          setupFiles,
          include: patternsOf(programs),
          maxWorkers: WAITING_WORKERS,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        resolve: { alias },
        test: {
          name: 'timed',
          setupFiles,
          include: patternsOf(timed),
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          sequence: { groupOrder: 2 },
        },
      },
      {
        resolve: { alias },
        test: {
          name: 'hostile',
          globalSetup,
          setupFiles,
          include: patternsOf(hostile),
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
export default config;
