#!/usr/bin/env node
/**
 * The program `virtual-presence`: runs the command of its arguments in this process.
 * @module
 */
import { CommandError, ExitCode } from './exit.ts';
import { ioOfProcess } from './io.ts';
import { report, runProgram } from './program.ts';

const io = ioOfProcess();
process.stdout.on('error', (cause: NodeJS.ErrnoException) => {
  // The reader of a pipe may end first, for example `head`.
  if (cause.code === 'EPIPE') process.exit(0);
  const message = `cannot write to standard output: ${cause.message}`;
  process.exit(report(new CommandError(ExitCode.Failed, message, { cause }), io));
});
// A gateway goes on without its log.
process.stderr.on('error', () => {});
// A fault that no promise reports, for example a TUN that was deleted while the gateway runs.
process.on('uncaughtException', (error) => process.exit(report(error, io)));
process.exit(await runProgram(process.argv.slice(2), io));
