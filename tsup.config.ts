import type { Options } from 'tsup';

const rooms = [
  'allocator',
  'audit',
  'control',
  'dataplane',
  'device',
  'dns',
  'gateway',
  'packet',
  'pki',
  'registry',
  'store',
  'translator',
  'trust',
  'tunnel',
];

const options: Options = {
  entry: {
    index: 'src/index.ts',
    ...Object.fromEntries(rooms.map((room) => [room, `src/${room}/index.ts`])),
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
  },
};
export default options;
