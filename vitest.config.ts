import { fileURLToPath } from 'node:url';
import { defineConfig, type ViteUserConfig } from 'vitest/config';

const source = (path: string) => fileURLToPath(new URL(path, import.meta.url));

/** Tests that start whole programs, ask the kernel, build the package or measure: one at a time, after all others. */
const heavy = [
  'test/translator/allocation.test.ts',
  'test/differential/**/*.test.ts',
  'test/e2e/**/*.test.ts',
  'test/package/**/*.test.ts',
];

/** An attacker in place of an edge gateway, and traffic beside it that is measured: alone on the machine. */
const hostile = ['test/hostile/**/*.test.ts'];

const alias = [
  { find: /^virtual-presence$/, replacement: source('src/index.ts') },
  { find: /^virtual-presence\/errors$/, replacement: source('src/errors.ts') },
  { find: /^virtual-presence\/(.*)$/, replacement: source('src/$1/index.ts') },
];

const setupFiles = [source('test/support/patience.ts'), source('test/support/value-equality.ts')];

const config: ViteUserConfig = defineConfig({
  test: {
    projects: [
      {
        resolve: { alias },
        test: {
          name: 'modules',
          setupFiles,
          include: ['test/**/*.test.ts'],
          exclude: [...heavy, ...hostile],
          testTimeout: 30_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        resolve: { alias },
        test: {
          name: 'programs',
          setupFiles,
          include: heavy,
          fileParallelism: false,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        resolve: { alias },
        test: {
          name: 'hostile',
          setupFiles,
          include: hostile,
          fileParallelism: false,
          testTimeout: 300_000,
          hookTimeout: 300_000,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
export default config;
