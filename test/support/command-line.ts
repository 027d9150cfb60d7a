/**
 * Commands as documents and programs show them, against the tree of `virtual-presence`.
 * @module
 */
import type { Command } from 'commander';
import { createProgram, ioOfProcess } from '../../src/cli/index.ts';

/**
 * Returns what is wrong with a command, or undefined: that there is no such command or option, or that it takes another
 * number of arguments.
 *
 * @param words what stands behind `virtual-presence`
 */
export function faultOfCommand(words: readonly string[]): string | undefined {
  const rest = [...words];
  let command: Command = createProgram(ioOfProcess());
  for (;;) {
    const next = command.commands.find((each) => each.name() === rest[0]);
    if (next === undefined) break;
    command = next;
    rest.shift();
  }
  if (command.commands.length > 0) return `there is no command ${words.join(' ')}`;
  const given: string[] = [];
  for (let word = rest.shift(); word !== undefined; word = rest.shift()) {
    if (!word.startsWith('-') || word === '-') {
      given.push(word);
      continue;
    }
    const [flag] = word.split('=');
    const option = command.options.find(({ long, short }) => flag === long || flag === short);
    if (option === undefined) return `${command.name()} has no option ${flag}`;
    if (option.required && !word.includes('=')) rest.shift();
  }
  const expected = command.registeredArguments;
  const least = expected.filter(({ required }) => required).length;
  const most = expected.some(({ variadic }) => variadic)
    ? Number.POSITIVE_INFINITY
    : expected.length;
  if (given.length >= least && given.length <= most) return undefined;
  return `${command.name()} takes ${least} to ${most} arguments, not ${given.length}`;
}
