/**
 * Compiles the programs of a load, which are in C so that they take little of the machine.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { basename, join } from 'node:path';

/**
 * Compiles a program into a directory, and returns its path.
 *
 * @param source the path of the program, which ends with `.c`
 */
export function compileC(source: string, directory: string): string {
  const program = join(directory, basename(source, '.c'));
  execFileSync('cc', ['-O2', '-o', program, source], { stdio: 'inherit' });
  return program;
}
