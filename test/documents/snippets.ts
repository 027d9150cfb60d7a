/**
 * The code blocks of the documents, and how each is tested. `snippets.test.ts` fails on a block of code that is not in
 * these tables.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { transform } from 'esbuild';

export const REPOSITORY: string = fileURLToPath(new URL('../..', import.meta.url));

const SKIPPED = /(^|\/)(node_modules|dist|coverage|\.git|docs\/api)(\/|$)/;

/** The pages at the root, the pages of docs/ and the README of every folder, as paths within the repository. */
export const DOCUMENTS: readonly string[] = readdirSync(REPOSITORY, { withFileTypes: true })
  .filter(({ name }) => !SKIPPED.test(name))
  .flatMap((entry) =>
    entry.isDirectory()
      ? readdirSync(`${REPOSITORY}/${entry.name}`, { recursive: true, encoding: 'utf8' }).map(
          (path) => `${entry.name}/${path}`
        )
      : [entry.name]
  )
  .filter(
    (path) =>
      !SKIPPED.test(path) &&
      /^docs\/[^/]*\.md$|(^|\/)README\.md$|^(CONTRIBUTING|SECURITY)\.md$/.test(path)
  )
  .sort();

export function read(document: string): string {
  return readFileSync(`${REPOSITORY}/${document}`, 'utf8');
}

export interface Block {
  /** What stands behind the opening fence; empty for drawings and output. */
  readonly language: string;
  readonly text: string;
}

/** The fenced blocks of a document, without their fences and, in a list, without the indentation of these. */
export function blocksOf(document: string): readonly Block[] {
  const fenced = /^( *)```(\w*)\n([\s\S]*?)^\1```$/gm;
  return [...read(document).matchAll(fenced)].map(([, indentation, language, text]) => ({
    language: language!,
    text: text!.replace(new RegExp(`^${indentation}`, 'gm'), ''),
  }));
}

/** A block that is run, and must print what its document says. */
export interface Program {
  readonly document: string;
  /** Its number among the blocks of `document` in this language. */
  readonly number: number;
  /** The comments behind its `console.log`, or the block without a language in the same document. */
  readonly prints: 'comments' | 'block';
}

/** Each is run from the sources, and from the package by `import` and by `require`. */
export const PROGRAMS: readonly Program[] = [
  { document: 'README.md', number: 0, prints: 'comments' },
  { document: 'docs/composing.md', number: 0, prints: 'block' },
  { document: 'docs/composing.md', number: 1, prints: 'comments' },
  { document: 'docs/embedding.md', number: 0, prints: 'block' },
];

/** A block that is compiled, and not run. */
export interface Excerpt {
  readonly document: string;
  readonly language: 'ts' | 'js';
  readonly number: number;
  readonly whyNotRun: string;
  /** What the text around it takes for granted. */
  readonly preamble: string;
}

const SOCKETS = `
  import type { EdgeGateway } from 'virtual-presence';
  declare const sockets: EdgeGateway['sockets'];`;

export const EXCERPTS: readonly Excerpt[] = [
  {
    document: 'docs/embedding.md',
    language: 'js',
    number: 0,
    whyNotRun: 'it waits for a signal',
    preamble: `
      import type { CloudGateway } from 'virtual-presence';
      declare const gateway: CloudGateway;`,
  },
  {
    document: 'docs/monitoring.md',
    language: 'ts',
    number: 0,
    whyNotRun: 'it needs @opentelemetry/api, whose interface the preamble has',
    preamble: `
      import type { CloudGateway } from 'virtual-presence';
      declare const gateway: CloudGateway;
      interface Instrument { addCallback(callback: (result: unknown) => void): void }
      interface BatchObserver {
        observe(instrument: Instrument, value: number, attributes: Record<string, string>): void;
      }
      declare const meter: {
        createObservableCounter(name: string, options: { description?: string }): Instrument;
        createObservableGauge(name: string, options: { description?: string }): Instrument;
        addBatchObservableCallback(
          callback: (observer: BatchObserver) => void | Promise<void>,
          instruments: Instrument[]
        ): void;
      };`,
  },
  {
    document: 'docs/sockets.md',
    language: 'ts',
    number: 0,
    whyNotRun: 'it needs a cloud gateway with the services that it calls',
    preamble: '',
  },
  {
    document: 'docs/sockets.md',
    language: 'ts',
    number: 1,
    whyNotRun: 'it serves for ever; test/sockets/stream/agents.test.ts has such a server',
    preamble: SOCKETS,
  },
  {
    document: 'docs/sockets.md',
    language: 'ts',
    number: 2,
    whyNotRun: 'it needs two databases; test/e2e/rootless-databases.test.ts has such clients',
    preamble: SOCKETS,
  },
  {
    document: 'docs/sockets.md',
    language: 'ts',
    number: 3,
    whyNotRun: 'it needs a cloud gateway with the services that it names',
    preamble: `${SOCKETS}
      declare const report: (...what: unknown[]) => void;`,
  },
  {
    document: 'docs/sockets.md',
    language: 'ts',
    number: 4,
    whyNotRun: 'it takes a port that another program may have',
    preamble: SOCKETS,
  },
  {
    document: 'src/worker/README.md',
    language: 'ts',
    number: 0,
    whyNotRun: 'it opens TUNs, which takes CAP_NET_ADMIN',
    preamble: `
      import { type CertificateAuthority, PresenceController, type Registry } from 'virtual-presence';
      import type { ControlServer } from 'virtual-presence/control';
      import type { Credentials } from 'virtual-presence/pki';
      import type { Store } from 'virtual-presence/store';
      declare const credentials: Credentials, sites: string[], authority: CertificateAuthority;
      declare const controlServer: ControlServer, onFault: (error: Error) => void;
      declare const registry: Registry, store: Store;`,
  },
  {
    document: 'src/worker/README.md',
    language: 'ts',
    number: 1,
    whyNotRun: 'the bundle that it names is made by the bundler of a host',
    preamble: `
      import { WorkerPool, type WorkerPoolOptions } from 'virtual-presence/worker';
      declare const options: WorkerPoolOptions;`,
  },
];

/** For `test.each`: the name of each program, and the program. */
export const NAMED_PROGRAMS: readonly (readonly [string, Program])[] = PROGRAMS.map((program) => [
  `program ${program.number + 1} of ${program.document}`,
  program,
]);

export function codeOf({ document, number }: Program | Excerpt, language = 'ts'): string {
  const block = blocksOf(document).filter((each) => each.language === language)[number];
  if (block === undefined) throw new Error(`${document} has no block ${number} in ${language}`);
  return block.text;
}

/** What the document says that the program prints. */
export function outputOf(program: Program): string {
  if (program.prints === 'block') {
    return blocksOf(program.document).find(({ language }) => language === '')!.text;
  }
  const logged = /console\.log\(.*\); \/\/ (.*)$/gm;
  return [...codeOf(program).matchAll(logged)].map(([, comment]) => `${comment}\n`).join('');
}

/** The program as JavaScript of the given kind of module. */
export async function compile(code: string, format: 'esm' | 'cjs'): Promise<string> {
  const imports = /^import [\s\S]*?;$/gm;
  // CommonJS has no `await` at the top level.
  const source =
    format === 'esm'
      ? code
      : `${[...code.matchAll(imports)].join('\n')}\n(async () => {\n${code.replace(imports, '')}\n})();`;
  return (await transform(source, { loader: 'ts', format, target: 'node20' })).code;
}
