import { transform } from 'esbuild';
import type { Options } from 'tsup';

const modules = [
  'admin',
  'allocator',
  'audit',
  'control',
  'dataplane',
  'device',
  'diagnosis',
  'dns',
  'etcd',
  'gateway',
  'packet',
  'pki',
  'registry',
  'sockets',
  'store',
  'tcp',
  'translator',
  'trust',
  'tunnel',
  'worker',
];

const entries: Record<string, string> = {
  index: 'src/index.ts',
  ...Object.fromEntries(modules.map((name) => [name, `src/${name}/index.ts`])),
  errors: 'src/errors.ts',
  // The program that a worker's process runs.
  'worker-main': 'src/worker/worker-main.ts',
};

export const options: Options = {
  // The command is a program alone: nobody imports it.
  entry: { ...entries, cli: 'src/cli/main.ts' },
  format: 'esm',
  target: 'node20',
  // Names and lines of what is built can be read, and the sources are not in the package.
  sourcemap: false,
  // One copy of each class, whichever entry points a host loads.
  splitting: true,
  // tsup would bundle an optional dependency. The native part of koffi cannot be bundled.
  external: ['koffi', '@grpc/grpc-js', '@grpc/proto-loader'],
  // Puts constants where they are used, across files: the packet path is a third faster for it.
  esbuildOptions: (esbuild) => {
    esbuild.minifySyntax = true;
  },
};

const library: Options = { ...options, entry: entries };

/**
 * The same as CommonJS, without the command. esbuild makes it of each file when that is split off as ESM: tsup's own way initialises the
 * public fields of a class after the private ones, whatever their order is.
 */
const commonJs: Options = {
  ...library,
  outExtension: () => ({ js: '.cjs' }),
  // CommonJS has no `import.meta`; `src/worker/worker-entry.ts` takes a path as well as a URL.
  define: { 'import.meta.url': '__filename' },
  plugins: [
    {
      name: 'commonjs',
      async renderChunk(code, { path }) {
        if (!path.endsWith('.cjs')) return;
        return transform(code, {
          format: 'cjs',
          platform: 'node',
          target: 'node20',
          sourcefile: path,
        });
      },
    },
  ],
};

const declarations: Options = { ...library, format: ['esm', 'cjs'], dts: { only: true } };

// They run at the same time, so none of them may empty the folder: `npm run build` does that.
const builds: Options[] = [options, commonJs, declarations];
export default builds;
