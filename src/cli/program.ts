/**
 * The tree of all commands, and how one of them is run.
 * @module
 */
import { Command } from 'commander';
import { VERSION } from '../base/version.ts';
import { registerAudit } from './commands/audit.ts';
import { registerBench } from './commands/bench.ts';
import { registerCa } from './commands/ca.ts';
import { registerCapture } from './commands/capture.ts';
import { registerCloud } from './commands/cloud.ts';
import { registerCompletion } from './commands/completion.ts';
import { registerConfig } from './commands/config.ts';
import { registerDesired } from './commands/desired.ts';
import { registerEdge } from './commands/edge.ts';
import { registerExplain } from './commands/explain.ts';
import { registerExpose, registerUnexpose } from './commands/expose.ts';
import { registerExposure } from './commands/exposure.ts';
import { registerInit } from './commands/init.ts';
import { registerInspect } from './commands/inspect.ts';
import { registerMachine } from './commands/machine.ts';
import { registerMaintenance } from './commands/maintenance.ts';
import { registerPing } from './commands/ping.ts';
import { registerReinstate, registerRevocation, registerRevoke } from './commands/revocation.ts';
import { registerService } from './commands/service.ts';
import { registerSite } from './commands/site.ts';
import { registerStatus } from './commands/status.ts';
import { registerEnrol, registerToken } from './commands/token.ts';
import { type ExitCode, endingOf } from './exit.ts';
import type { Io } from './io.ts';

/** Adds commands to the tree. */
export type Register = (program: Command, io: Io) => void;

/** One line for each file of `commands/`, in the order of the help. */
const REGISTERS: readonly Register[] = [
  registerInit,
  registerCloud,
  registerEdge,
  registerConfig,
  registerStatus,
  registerSite,
  registerService,
  registerExpose,
  registerUnexpose,
  registerExposure,
  registerToken,
  registerEnrol,
  registerRevoke,
  registerReinstate,
  registerRevocation,
  registerInspect,
  registerExplain,
  registerPing,
  registerCapture,
  registerMaintenance,
  registerMachine,
  registerCa,
  registerDesired,
  registerAudit,
  registerBench,
  registerCompletion,
];

export const NAME = 'virtual-presence';

/** Builds the tree. Nothing is read or written. */
export function createProgram(io: Io): Command {
  const program = new Command(NAME)
    .description('Runs gateways that make services of a cloud and its sites present in each other.')
    .version(VERSION)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => io.stdout.write(text),
      writeErr: (text) => io.stderr.write(text),
      // `runProgram` prints the sentence.
      outputError: () => {},
    })
    .helpCommand('help [command]', 'show the help of a command')
    .showSuggestionAfterError();
  for (const register of REGISTERS) register(program, io);
  return program;
}

/**
 * Runs a command to its end.
 *
 * @param args the arguments, without the names of Node and of the program
 * @returns the exit code. What went wrong has been written to standard error.
 */
export async function runProgram(args: readonly string[], io: Io): Promise<ExitCode> {
  try {
    await createProgram(io).parseAsync(args, { from: 'user' });
    return 0;
  } catch (error) {
    return report(error, io);
  }
}

/** Writes why a command has not succeeded, and returns its exit code. */
export function report(error: unknown, io: Pick<Io, 'stderr'>): ExitCode {
  const { exitCode, message } = endingOf(error);
  if (message !== undefined) io.stderr.write(`${NAME}: ${message}\n`);
  return exitCode;
}
