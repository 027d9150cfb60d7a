/**
 * The scripts by which shells complete commands, made of the tree. Each has every command, option and choice, and asks
 * nothing of this program when it runs. Where nothing fits, the shell completes names of files.
 * @module
 */
import { nodesOf, type TreeNode } from './tree.ts';

export type Shell = 'bash' | 'zsh' | 'fish';
export const SHELLS: readonly Shell[] = ['bash', 'zsh', 'fish'];

/** Returns the script for a shell. */
export function completionScript(shell: Shell, tree: TreeNode): string {
  return `${{ bash: bashScript, zsh: zshScript, fish: fishScript }[shell](tree).join('\n')}\n`;
}

/** What may stand at a place of the command line. */
interface Word {
  readonly text: string;
  readonly meaning: string;
}

/** The words that may stand behind a command. */
function wordsOf({ children, options, parameters }: TreeNode): Word[] {
  return [
    ...children.map(({ words, summary }) => ({ text: words.at(-1)!, meaning: summary })),
    ...parameters.flatMap(({ choices, description }) =>
      choices.map((text) => ({ text, meaning: description }))
    ),
    ...options.map(({ name, description }) => ({ text: name, meaning: description })),
    { text: '--help', meaning: 'show the help of this command' },
  ];
}

/** A path as the scripts have it: a space before each word. */
const pathOf = (words: readonly string[]): string => words.map((word) => ` ${word}`).join('');

/** The patterns by which a script follows the path of commands. */
function pathPatterns(tree: TreeNode): string {
  return nodesOf(tree)
    .filter(({ words }) => words.length > 0)
    .map(({ words }) => `"${pathOf(words)}"`)
    .join('|');
}

/** The options with choices, each with the path of its command. */
function choicesOf(tree: TreeNode): { readonly at: string; readonly choices: readonly string[] }[] {
  return nodesOf(tree).flatMap(({ words, options }) =>
    options
      .filter(({ choices }) => choices.length > 0)
      .map(({ name, choices }) => ({ at: `${pathOf(words)} ${name}`, choices }))
  );
}

/** The options that take any value, each with the path of its command. */
function freeOptionsOf(tree: TreeNode): string[] {
  return nodesOf(tree).flatMap(({ words, options }) =>
    options
      .filter(({ takesValue, choices }) => takesValue && choices.length === 0)
      .map(({ name }) => `"${pathOf(words)} ${name}"`)
  );
}

function bashScript(tree: TreeNode): string[] {
  const reply = (words: readonly string[]) =>
    `COMPREPLY=($(compgen -W '${words.join(' ')}' -- "$current"))`;
  return [
    '# Completion of virtual-presence: source <(virtual-presence completion bash)',
    '_virtual_presence() {',
    `  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD - 1]} at= word`,
    `  for word in "\${COMP_WORDS[@]:1:COMP_CWORD - 1}"; do`,
    `    case "$at $word" in ${pathPatterns(tree)}) at="$at $word" ;; esac`,
    '  done',
    '  COMPREPLY=()',
    '  case "$at $before" in',
    ...choicesOf(tree).map(({ at, choices }) => `    "${at}") ${reply(choices)}; return ;;`),
    `    ${freeOptionsOf(tree).join('|')}) return ;;`,
    '  esac',
    '  case "$at" in',
    ...nodesOf(tree).map(
      (node) => `    "${pathOf(node.words)}") ${reply(wordsOf(node).map(({ text }) => text))} ;;`
    ),
    '  esac',
    '}',
    'complete -o default -F _virtual_presence virtual-presence',
  ];
}

function zshScript(tree: TreeNode): string[] {
  const described = ({ text, meaning }: Word) =>
    quoted(`${text}:${meaning.replaceAll(':', '\\:')}`);
  return [
    '#compdef virtual-presence',
    '# Completion of virtual-presence: source <(virtual-presence completion zsh)',
    '_virtual_presence() {',
    '  local at= word',
    '  local -a choices',
    `  for word in "\${(@)words[2,CURRENT-1]}"; do`,
    `    case "$at $word" in (${pathPatterns(tree)}) at="$at $word" ;; esac`,
    '  done',
    `  case "$at \${words[CURRENT-1]}" in`,
    ...choicesOf(tree).map(
      ({ at, choices }) => `    ("${at}") compadd -- ${choices.join(' ')}; return ;;`
    ),
    `    (${freeOptionsOf(tree).join('|')}) _files; return ;;`,
    '  esac',
    '  case "$at" in',
    ...nodesOf(tree).map(
      (node) =>
        `    ("${pathOf(node.words)}") choices=(${wordsOf(node).map(described).join(' ')}) ;;`
    ),
    '  esac',
    "  _describe -t commands 'virtual-presence' choices || _files",
    '}',
    'if [ "$funcstack[1]" = _virtual_presence ]; then _virtual_presence "$@"; else compdef _virtual_presence virtual-presence; fi',
  ];
}

function fishScript(tree: TreeNode): string[] {
  const paths = nodesOf(tree).filter(({ words }) => words.length > 0);
  return [
    '# Completion of virtual-presence: virtual-presence completion fish | source',
    'function __virtual_presence_at',
    '  set -l at',
    '  for word in (commandline -opc)[2..-1]',
    `    contains -- "$at $word" ${paths.map(({ words }) => quoted(pathOf(words))).join(' ')}`,
    '    and set at "$at $word"',
    '  end',
    '  test "$at" = "$argv[1]"',
    'end',
    ...nodesOf(tree).flatMap((node) => {
      const condition = `-n ${quoted(`__virtual_presence_at "${pathOf(node.words)}"`)}`;
      const start = `complete -c virtual-presence ${condition}`;
      const words = [...node.children, ...node.parameters].length > 0 ? wordsOf(node) : [];
      const plain = words
        .filter(({ text }) => !text.startsWith('-'))
        .map(({ text, meaning }) => `${start} -a ${text} -d ${quoted(meaning)}`);
      const options = node.options.map(({ name, takesValue, choices, description }) => {
        const value = choices.length > 0 ? ` -x -a ${quoted(choices.join(' '))}` : ' -r';
        return `${start} -l ${name.replace(/^--/, '')}${takesValue ? value : ''} -d ${quoted(description)}`;
      });
      const noFiles = node.children.length > 0 ? [`${start} -f`] : [];
      return [...noFiles, ...plain, ...options];
    }),
  ];
}

/** A word in single quotes, for each of the shells. */
function quoted(text: string): string {
  return `'${text.replaceAll("'", "'\\''")}'`;
}
