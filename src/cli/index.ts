/**
 * The command `virtual-presence`. It is no entry point of the package, whose `bin` is `main.ts`.
 * @module
 */

export { ExitCode } from './exit.ts';
export { type Io, ioOfProcess, type Signal, type SignalSource } from './io.ts';
export { createProgram, runProgram } from './program.ts';
