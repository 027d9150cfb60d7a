/**
 * The reference page of the command, docs/command.md, made of the tree of commands.
 * @module
 */
import { createProgram, ioOfProcess } from '../src/cli/index.ts';
import { nodesOf, type TreeNode, treeOf } from '../src/cli/tree.ts';

/** Returns the text of docs/command.md. */
export function commandReference(): string {
  const tree = treeOf(createProgram(ioOfProcess()));
  const commands = nodesOf(tree).filter(({ children }) => children.length === 0);
  return [
    '# The command virtual-presence',
    '',
    'This page lists every command, with its arguments and options. It is made of the program by `npm run schemas`.',
    '[operating.md](operating.md) says how gateways are run, and what the exit codes mean. `virtual-presence completion SHELL`',
    'prints a script by which bash, zsh or fish completes commands.',
    '',
    '| command | does |',
    '| --- | --- |',
    ...commands.map(
      (node) => `| [${nameOf(node)}](#${anchorOf(nameOf(node))}) | ${cell(node.summary)} |`
    ),
    '',
    ...commands.flatMap(sectionOf),
  ]
    .join('\n')
    .trimEnd()
    .concat('\n');
}

const nameOf = ({ words }: TreeNode): string => words.join(' ');

/** The anchor that GitHub gives a heading. */
const anchorOf = (heading: string): string => heading.replaceAll(' ', '-');

function sectionOf(node: TreeNode): string[] {
  const { usage, description, parameters, options } = node;
  const optional = options.length > 0 ? '[options]' : '';
  const line = ['virtual-presence', nameOf(node), optional, usage].filter((part) => part !== '');
  const rows = [
    ...parameters.map(({ name, description: text, choices }) => [name, meaningOf(text, choices)]),
    ...options.map(({ flags, description: text, choices, defaultValue }) => [
      flags,
      meaningOf(text, choices, defaultValue),
    ]),
  ];
  return [
    `## ${nameOf(node)}`,
    '',
    '```text',
    line.join(' '),
    '```',
    '',
    description,
    '',
    ...(rows.length === 0
      ? []
      : [
          '| argument or option | meaning |',
          '| --- | --- |',
          ...rows.map(([name, meaning]) => `| \`${cell(name!)}\` | ${cell(meaning!)} |`),
          '',
        ]),
  ];
}

function meaningOf(text: string, choices: readonly string[], defaultValue?: string): string {
  const parts = [
    text,
    ...(choices.length > 0 ? [`one of ${choices.map((each) => `\`${each}\``).join(', ')}`] : []),
    ...(defaultValue === undefined ? [] : [`default \`${defaultValue}\``]),
  ];
  return parts.join('; ');
}

/** A vertical bar would end the cell. */
const cell = (text: string): string => text.replaceAll('|', '\\|');
