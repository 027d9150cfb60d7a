import type { Options } from 'tsup';

const rooms = [
  'allocator',
  'audit',
  'control',
  'dataplane',
  'device',
  'dns',
  'packet',
  'pki',
  'registry',
  'store',
  'translator',
  'trust',
  'tunnel',
  'worker',
];

const options: Options = {
  entry: {
    index: 'src/index.ts',
    ...Object.fromEntries(rooms.map((room) => [room, `src/${room}/index.ts`])),
    // The program that a worker's process runs.
    'worker-main': 'src/worker/worker-main.ts',
  },
  format: ['esm', 'cjs'],
  target: 'node20',
  dts: true,
  sourcemap: true,
  // One copy of each class, whichever entry points a host loads.
  splitting: true,
  // tsup would bundle an optional dependency, whose native part cannot be.
  external: ['koffi'],
  clean: true,
  // Puts constants where they are used, across files: the packet path is a third faster for it. (What
  // makes CommonJS of it would not take the syntax.)
  esbuildOptions: (esbuild, { format }) => {
    esbuild.minifySyntax = format === 'esm';
    // CommonJS has no `import.meta`; `src/worker/worker-entry.ts` takes a path as well as a URL.
    if (format === 'cjs') esbuild.define = { ...esbuild.define, 'import.meta.url': '__filename' };
  },
};
export default options;
