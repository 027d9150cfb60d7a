/**
 * `completion SHELL`: prints the script by which a shell completes commands.
 * @module
 */
import { Argument, type Command } from 'commander';
import { completionScript, SHELLS, type Shell } from '../completion.ts';
import type { Io } from '../io.ts';
import { treeOf } from '../tree.ts';

export function registerCompletion(program: Command, io: Io): void {
  program
    .command('completion')
    .summary('print the script by which a shell completes commands')
    .description(
      'Prints the script by which a shell completes commands, options and their values. The script says how it is used.'
    )
    .addArgument(new Argument('<shell>', 'the shell').choices(SHELLS))
    .action((shell: Shell) => {
      io.stdout.write(completionScript(shell, treeOf(program)));
    });
}
