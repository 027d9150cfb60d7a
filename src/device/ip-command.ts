/**
 * Runs the command `ip` of iproute2 without a shell.
 * @module
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { EnvironmentError } from '../errors.ts';

/**
 * Runs `ip` and returns its output.
 *
 * @throws {EnvironmentError} if it is missing or fails, or prints more than 16 MiB; the message has what it printed.
 */
export async function ip(...args: string[]): Promise<string> {
  try {
    const limits = { timeout: TIMEOUT_MS, maxBuffer: MAX_OUTPUT_BYTES };
    return (await promisify(execFile)('ip', args, limits)).stdout;
  } catch (cause) {
    throw fault(args, cause as ExecFault);
  }
}

/**
 * Runs all lines with one `ip`, which goes on after a line that fails.
 *
 * @param harmless matches the error messages that are no fault.
 * @throws {EnvironmentError} if `ip` is missing, or prints another error.
 */
export async function ipBatch(lines: readonly string[], harmless: RegExp): Promise<void> {
  const running = promisify(execFile)('ip', ['-force', '-batch', '-'], { timeout: TIMEOUT_MS });
  running.child.stdin!.on('error', () => {});
  running.child.stdin!.end(`${lines.join('\n')}\n`);
  await running.catch((cause: ExecFault) => {
    const faults = (cause.stderr ?? '').trim().split('\n');
    const isHarmless = faults.every((line) => harmless.test(line));
    if (!isHarmless) throw fault(['-batch', ...lines.slice(0, 1)], cause);
  });
}

type ExecFault = NodeJS.ErrnoException & { readonly stderr?: string };

function fault(args: readonly string[], cause: ExecFault): EnvironmentError {
  const { code, stderr, message } = cause;
  return new EnvironmentError(
    String(code) === 'ENOENT'
      ? 'the command ip is missing; install iproute2'
      : `ip ${args.join(' ')} failed: ${stderr?.trim().replace(/\s*\n\s*/g, '; ') || message}`,
    { cause }
  );
}

const TIMEOUT_MS = 10_000;
/** Some 100,000 routes as JSON. */
const MAX_OUTPUT_BYTES = 16 << 20;
