/**
 * The tree of commands as plain values, for what is made of it: completion and the reference page.
 * @module
 */
import type { Command } from 'commander';

/** A command or a group of commands. */
export interface TreeNode {
  /** The words behind `virtual-presence`; empty for the root. */
  readonly words: readonly string[];
  readonly summary: string;
  readonly description: string;
  /** As in `[directory]`. */
  readonly usage: string;
  readonly parameters: readonly TreeParameter[];
  readonly options: readonly TreeOption[];
  readonly children: readonly TreeNode[];
}

export interface TreeParameter {
  readonly name: string;
  readonly description: string;
  readonly choices: readonly string[];
}

export interface TreeOption {
  /** As in `--log-level <level>`. */
  readonly flags: string;
  /** As in `--log-level`. */
  readonly name: string;
  readonly takesValue: boolean;
  readonly description: string;
  readonly choices: readonly string[];
  /** Undefined if there is none. */
  readonly defaultValue: string | undefined;
}

/** Reads the tree from the root on. The help is no part of it. */
export function treeOf(command: Command, words: readonly string[] = []): TreeNode {
  return {
    words,
    summary: command.summary(),
    description: command.description(),
    usage: command.registeredArguments.map(usageOf).join(' '),
    parameters: command.registeredArguments.map((argument) => ({
      name: usageOf(argument),
      description: argument.description,
      choices: argument.argChoices ?? [],
    })),
    options: command.options
      .filter(({ hidden }) => !hidden)
      .map((option) => ({
        flags: option.flags,
        name: option.long ?? option.flags,
        takesValue: option.required || option.optional,
        description: option.description,
        choices: option.argChoices ?? [],
        defaultValue: typeof option.defaultValue === 'string' ? option.defaultValue : undefined,
      })),
    children: command.commands.map((child) => treeOf(child, [...words, child.name()])),
  };
}

/** Returns a node and all below it, each before its children. */
export function nodesOf(node: TreeNode): TreeNode[] {
  return [node, ...node.children.flatMap(nodesOf)];
}

function usageOf(argument: Command['registeredArguments'][number]): string {
  const name = argument.variadic ? `${argument.name()}...` : argument.name();
  return argument.required ? `<${name}>` : `[${name}]`;
}
