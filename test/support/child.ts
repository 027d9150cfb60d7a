/**
 * Child processes that run TypeScript.
 * @module
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { onTestFinished } from 'vitest';

/** Starts Node with TypeScript support, by the command `prefix` if there is one; it ends with the test. */
export function spawnNode(args: string[], prefix: string[] = []): ChildProcess {
  const [command, ...rest] = [...prefix, process.execPath, '--import', 'tsx', ...args];
  const child = spawn(command!, rest, { stdio: ['ignore', 'pipe', 'ignore'] });
  onTestFinished(() => {
    child.kill('SIGKILL');
  });
  return child;
}

export async function outcome(
  child: ChildProcess
): Promise<{ output: string; code: number | null; signal: string | null }> {
  let output = '';
  child.stdout!.setEncoding('utf8').on('data', (text) => {
    output += text;
  });
  const [code, signal] = await once(child, 'close');
  return { output, code, signal };
}
