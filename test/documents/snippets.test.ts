/**
 * Every block of code in the documents is run, compiled, parsed or checked word by word. Links lead somewhere, and files
 * that are named exist. `test/e2e/documented-programs.test.ts` and `test/package/package.test.ts` run the programs.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, normalize } from 'node:path';
import type { Command } from 'commander';
import ts from 'typescript';
import { describe, expect, test } from 'vitest';
import { parse } from 'yaml';
import manifest from '../../package.json' with { type: 'json' };
import { CLOUD_OPERATIONS, EDGE_OPERATIONS, type Operations } from '../../src/admin/index.ts';
import { Router } from '../../src/admin/router.ts';
import { parseSchema } from '../../src/base/schema.ts';
import { CloudFileSchema } from '../../src/cli/cloud-file.ts';
import { EdgeFileSchema } from '../../src/cli/edge-file.ts';
import { createProgram, ioOfProcess } from '../../src/cli/index.ts';
import { readClose, readHello, readWelcome } from '../../src/tunnel/messages.ts';
import { moduleOf, readTree } from '../structure/source-tree.ts';
import { faultOfCommand } from '../support/command-line.ts';
import { blocksOf, codeOf, DOCUMENTS, EXCERPTS, PROGRAMS, REPOSITORY, read } from './snippets.ts';

const all = DOCUMENTS.flatMap((document) =>
  blocksOf(document).map((block) => ({ document, ...block }))
);
const inLanguage = (language: string) => all.filter((block) => block.language === language);

describe('blocks', () => {
  test('are in a language that is tested', () => {
    const others = all.filter(
      ({ language }) => !['ts', 'js', 'json', 'yaml', 'sh', 'bird', 'text', ''].includes(language)
    );
    expect(others.map(({ document, language }) => `${document}: ${language}`)).toEqual([]);
  });

  test.each(['ts', 'js'])('of %s are each in the table of programs or of excerpts', (language) => {
    const listed = [...PROGRAMS.map((each) => ({ language: 'ts', ...each })), ...EXCERPTS];
    const names = listed
      .filter((each) => each.language === language)
      .map(({ document, number }) => `${document} ${number}`);
    const counts = new Map<string, number>();
    const found = inLanguage(language).map(({ document }) => {
      const number = counts.get(document) ?? 0;
      counts.set(document, number + 1);
      return `${document} ${number}`;
    });
    expect(names.sort()).toEqual(found.sort());
  });

  test('without a language are drawings and output, not code', () => {
    const code = /^(import|export|const|let|await|npm|npx|node|curl|\$) /m;
    const hidden = [...inLanguage(''), ...inLanguage('text')].filter(({ text }) => code.test(text));
    expect(hidden.map(({ document }) => document)).toEqual([]);
  });

  test('of JSON can be parsed, and those of the wire format are its messages', () => {
    for (const { document, text } of inLanguage('json')) {
      expect(() => JSON.parse(text), `${document}: ${text}`).not.toThrow();
    }
    const [hello, welcome, close] = blocksOf('docs/wire-format.md')
      .filter(({ language }) => language === 'json')
      .map(({ text }) => JSON.parse(text));
    expect(readHello(hello)).toEqual(hello);
    expect(readWelcome(welcome)).toEqual(welcome);
    expect(readClose(close)).toEqual(close);
  });

  test('of YAML are a part of the file of a gateway', () => {
    const own = { stateDirectory: './state', device: { type: 'sockets' } };
    const cloud = { ...own, trustDomain: 'example.test', adminSocket: './sock', tunnel: 'h:1' };
    for (const { document, text } of inLanguage('yaml')) {
      const keys = parse(text) as object;
      const check = () =>
        'desired' in keys
          ? parseSchema(CloudFileSchema, { ...cloud, ...keys })
          : parseSchema(EdgeFileSchema, { ...own, tokenFile: './token', ...keys });
      expect(check, `${document}: ${text}`).not.toThrow();
    }
  });
});

/** Commands of shell blocks that are neither of this repository nor of Node. */
const FOREIGN =
  /^((apt|apt-get) install|tcpdump|systemctl|cp|mv|rm|tar|install|openssl|watch|etcdctl|export) /;

describe('commands', () => {
  const lines = inLanguage('sh').flatMap(({ document, text }) =>
    text
      .split('\n')
      .map((line) => line.replace(/(^|\s)#.*$/, '').trim())
      .filter((line) => line !== '')
      .flatMap((line) => line.split(' && '))
      .map((command) => [document, command.replace(/^sudo |^([A-Z_]+=\S+ )+/, '')] as const)
  );

  test.each(lines)('%s: %s', (document, command) => {
    if (
      FOREIGN.test(command) ||
      /^npm install( (--global )?virtual-presence(@VERSION)?( @grpc\/[a-z-]+)*)?$/.test(command)
    )
      return;
    if (command.startsWith('grep ')) {
      const cwd = dirname(join(REPOSITORY, document));
      const { status, stdout } = spawnSync('bash', ['-o', 'pipefail', '-c', command], { cwd });
      expect(status).toBe(0);
      return expect(stdout.length).toBeGreaterThan(0);
    }
    const words = command.split(/\s+/);
    const script = /^npm (?:run )?(\S+)/.exec(command)?.[1];
    if (script !== undefined) return expectScript(script, words.slice(words.indexOf('--') + 1));
    if (words[0] === 'node') return expect(existsSync(join(REPOSITORY, words[3]!))).toBe(true);
    if (command.startsWith('npx vitest run ')) {
      return expect(existsSync(join(REPOSITORY, words.at(-1)!))).toBe(true);
    }
    const [program, ...rest] = words[0] === 'npx' ? words.slice(1) : words;
    if (program === 'virtual-presence') {
      // What a shell does with the output is no part of the command.
      const end = rest.findIndex((word) => /^[|>]/.test(word));
      return expect(faultOfCommand(end < 0 ? rest : rest.slice(0, end))).toBeUndefined();
    }
    const path = /http:\/\/admin(\/\S+)/.exec(command)?.[1];
    expect(path, 'a command that is not known').toBeDefined();
    const method = / -X ([A-Z]+) /.exec(command)?.[1] ?? (/ -d /.test(command) ? 'POST' : 'GET');
    const { operation } = new Router(CLOUD_OPERATIONS as unknown as Operations).match(
      method,
      path!
    );
    const body = / -d '([^']*)'/.exec(command)?.[1];
    if (body !== undefined) parseSchema(operation.body!, JSON.parse(body));
  });

  /** Checks that there is this npm script, and that its program knows the options. */
  function expectScript(name: string, words: readonly string[]): void {
    const command = (manifest.scripts as Record<string, string | undefined>)[name];
    expect(command, name).toBeDefined();
    const options = words.filter((word) => word.startsWith('--') && word !== '--');
    if (options.length === 0) return;
    const program = /\S+\.ts/.exec(command!)![0];
    const folder = dirname(join(REPOSITORY, program));
    const sources = readdirSync(folder)
      .filter((file) => file.endsWith('.ts'))
      .map((file) => readFileSync(join(folder, file), 'utf8'))
      .join('\n');
    for (const option of options) {
      const word = option.slice(2);
      const known = new RegExp(`'--${word}'|^ +'?${word}'?: \\{ type:`, 'm');
      expect(known.test(sources), `${option} of ${program}`).toBe(true);
    }
  }
});

/** The rows of a table of requests. */
function rowsOf(operations: object): string[] {
  return Object.values(operations as Operations).map(
    ({ method, path, summary }) => `| \`${method} ${path}\` | ${summary} |`
  );
}

describe('tables', () => {
  test('docs/operating.md lists every request of the admin interfaces', () => {
    const lines = read('docs/operating.md').split('\n');
    const listed = lines.filter((line) => /^\| `(GET|PUT|POST|DELETE) /.test(line));
    expect(listed).toEqual([...rowsOf(CLOUD_OPERATIONS), ...rowsOf(EDGE_OPERATIONS)]);
  });

  test('docs/operating.md names every command that talks to a gateway', () => {
    const [, table] = /\| command \| does \|\n((?:\|.*\n)+)/.exec(read('docs/operating.md'))!;
    const named = [...table!.matchAll(/`([a-z]+)/g)].map(([, name]) => name!);
    const talks = (command: Command): boolean =>
      command.options.some(({ long }) => long === '--socket') || command.commands.some(talks);
    const program = createProgram(ioOfProcess());
    const missing = program.commands.filter((each) => talks(each) && !named.includes(each.name()));
    expect(missing.map((each) => each.name())).toEqual([]);
  });

  test('docs/embedding.md names options that the gateways have', () => {
    const text = read('docs/embedding.md');
    const [, table] = /\| option \| gateway \|.*\n((?:\|.*\n)+)/.exec(text)!;
    const [, others] = /have defaults that suit most programs: ([^.]*)\./.exec(text)!;
    const cells = table!.split('\n').map((row) => row.split('|')[1] ?? '');
    const named = [...[...cells, others!].join().matchAll(/`(\w+)`/g)].map(([, name]) => name!);
    expect(named.length).toBeGreaterThan(15);
    const files = ['cloud-options', 'edge-options', 'common-options', 'state'];
    const sources = files.map((file) => read(`src/gateway/${file}.ts`)).join('\n');
    const options = [...sources.matchAll(/^ {2}readonly (\w+)\??:/gm)].map(([, name]) => name!);
    expect(named.filter((name) => !options.includes(name))).toEqual([]);
  });

  test('docs/architecture.md draws every module in a row below all that it imports from', () => {
    const drawing = blocksOf('docs/architecture.md').find(({ language }) => language === '')!.text;
    const rows = drawing.replace('->  examples/', '').trim().split('\n');
    const rowOf = new Map(
      rows.flatMap((row, i) =>
        row
          .trim()
          .split(/\s+/)
          .map((name) => [name, i])
      )
    );
    const source = readTree('src');
    expect([...rowOf.keys()].sort()).toEqual(
      [...new Set(source.map(({ module }) => module))].sort()
    );
    const upwards = source.flatMap(({ path, module, files }) =>
      files
        .filter(
          (file) => moduleOf(file) !== module && rowOf.get(moduleOf(file))! >= rowOf.get(module)!
        )
        .map((file) => `${path} -> ${file}`)
    );
    expect(upwards).toEqual([]);
  });

  test('docs/architecture.md describes every module', () => {
    const text = read('docs/architecture.md');
    const [, table] = /\| module \| what it owns \|\n([\s\S]*?)\n\n/.exec(text)!;
    const described = [...table!.matchAll(/^\| (\w+) \|/gm)].map(([, name]) => name!);
    const modules = readdirSync(join(REPOSITORY, 'src'))
      .map((name) => name.replace(/\.ts$/, ''))
      .filter((name) => name !== 'index');
    expect(described.sort()).toEqual(modules.sort());
  });
});

describe('references', () => {
  /** The anchors of a document's headings, as GitHub makes them. */
  function anchorsOf(document: string): string[] {
    return [...read(document).matchAll(/^#+ (.*)$/gm)].map(([, heading]) =>
      heading!
        .toLowerCase()
        .replace(/[^\w\- ]/g, '')
        .replaceAll(' ', '-')
    );
  }

  test('by a link lead to a file, and to a heading of it', () => {
    const broken = DOCUMENTS.flatMap((document) =>
      [...read(document).matchAll(/\]\(([^)\s]+)\)/g)]
        .map(([, link]) => link!)
        .filter((link) => {
          if (/^https?:/.test(link)) return false;
          const [path, anchor] = link.split('#') as [string, string?];
          const target = path === '' ? document : normalize(join(dirname(document), path));
          if (!existsSync(join(REPOSITORY, target))) return true;
          return anchor !== undefined && !anchorsOf(target).includes(anchor);
        })
        .map((link) => `${document}: ${link}`)
    );
    expect(broken).toEqual([]);
  });

  test('by a link in what the package contains lead to what it contains', () => {
    const folders = manifest.files.filter((file) => !file.startsWith('!') && file !== 'dist');
    const isShipped = (path: string): boolean =>
      ['README.md', 'LICENSE', 'package.json'].includes(path) ||
      folders.some((folder) => path === folder || path.startsWith(`${folder}/`));
    const shipped = [...DOCUMENTS, 'CHANGELOG.md'].filter(isShipped);
    expect(shipped.length).toBeGreaterThan(10);
    const dead = shipped.flatMap((document) =>
      [...read(document).matchAll(/\]\(([^)\s]+)\)/g)]
        .map(([, link]) => link!.split('#')[0]!)
        .filter((path) => path !== '' && !/^https?:/.test(path))
        .filter((path) => !isShipped(normalize(join(dirname(document), path))))
        .map((path) => `${document}: ${path}`)
    );
    expect(dead).toEqual([]);
  });

  test('by a path name a file that exists', () => {
    const path = /`((?:src|test|examples|bench|docs)\/(?!api`)[\w./-]+)`/g;
    const missing = DOCUMENTS.flatMap((document) =>
      [...read(document).matchAll(path)]
        .filter(([, file]) => !existsSync(join(REPOSITORY, file!)))
        .map(([, file]) => `${document}: ${file}`)
    );
    expect(missing).toEqual([]);
  });

  test('the tests that the tables of docs/threat-model.md name exist', () => {
    const text = read('docs/threat-model.md');
    const limits = text.slice(text.indexOf('## Limits'), text.indexOf('## Dependencies'));
    const folders = readdirSync(join(REPOSITORY, 'test')).filter((name) =>
      statSync(join(REPOSITORY, 'test', name)).isDirectory()
    );
    const named = [...limits.matchAll(/`(\w+\/[\w-]+)`/g)].map(([, name]) => name!);
    expect(named.length).toBeGreaterThan(50);
    const missing = named.filter(
      (name) => !existsSync(join(REPOSITORY, 'test', `${name}.test.ts`))
    );
    expect(missing.filter((name) => folders.includes(name.split('/')[0]!))).toEqual([]);
    // A row that names several tests of a folder names the folder once.
    const cells = [...text.matchAll(/\| ([^|]*`test\/[^|]*) \|$/gm)].map(([, cell]) => cell!);
    for (const cell of cells) {
      let folder = '';
      for (const [, path] of cell.matchAll(/`([\w/-]+\.test\.ts)`/g)) {
        if (path!.includes('/')) folder = dirname(path!);
        const file = path!.includes('/') ? path! : join(folder, path!);
        expect(existsSync(join(REPOSITORY, file)), file).toBe(true);
      }
    }
  });
});

describe('code', () => {
  test('of every block compiles as strictly as the library', { timeout: 180_000 }, () => {
    const files = new Map<string, string>([
      [join(REPOSITORY, 'test/documents/packages.d.ts'), PACKAGES],
      ...PROGRAMS.map((each, i) => [pathOf(i), codeOf(each)] as const),
      ...EXCERPTS.map(
        (each, i) =>
          [
            pathOf(PROGRAMS.length + i),
            `${each.preamble}\n${codeOf(each, each.language)}\nexport {};`,
          ] as const
      ),
    ]);
    const config = ts.readConfigFile(join(REPOSITORY, 'tsconfig.json'), ts.sys.readFile);
    const { options } = ts.parseJsonConfigFileContent(config.config, ts.sys, REPOSITORY);
    const host = ts.createCompilerHost(options);
    const { fileExists, readFile, getSourceFile } = host;
    host.fileExists = (path) => files.has(path) || fileExists(path);
    host.readFile = (path) => files.get(path) ?? readFile(path);
    host.getSourceFile = (path, ...rest) => {
      const text = files.get(path);
      if (text === undefined) return getSourceFile.call(host, path, ...rest);
      return ts.createSourceFile(path, text, ...(rest.slice(0, 1) as [ts.ScriptTarget]));
    };
    const program = ts.createProgram([...files.keys()], options, host);
    const faults = [...files.keys()].flatMap((path) => {
      const file = program.getSourceFile(path);
      return [...program.getSyntacticDiagnostics(file), ...program.getSemanticDiagnostics(file)];
    });
    expect(ts.formatDiagnostics(faults, host)).toBe('');
  });

  function pathOf(number: number): string {
    return join(REPOSITORY, `test/documents/snippet-${number}.ts`);
  }
});

/** Packages of a host, which this repository does not have. */
const PACKAGES = `
  declare module 'pino' {
    type Write = (fields: object, message: string) => void;
    export function pino(): { debug: Write; info: Write; warn: Write; error: Write };
  }`;
