/**
 * `npm run demo -- --machines 2`: a machine is lost under an AMQP connection and a transfer, and neither notices.
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';
import { SERVER } from '../../examples/two-sites/rabbitmq.ts';
import { whatIsMissing } from '../support/network.ts';
import { DEMO, REPOSITORY, RunningDemo } from './running-demo.ts';

const skipReason = whatIsMissing({ etcd: 'etcd-server', [SERVER]: 'rabbitmq-server' });
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';
const ARGS = ['--machines', '2'];

describe.skipIf(isSkipped)(`the scene of two machines${reason}`, () => {
  test('shows every step, and ends on SIGINT with all of its processes and files', async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    const whole = promisify(execFile)(process.execPath, [...DEMO, ...ARGS], { cwd: REPOSITORY });
    const interrupted = new RunningDemo(ARGS);
    try {
      await interrupted.printed('ok: both are alive');
      expect(interrupted.processes.length, interrupted.output).toBeGreaterThan(0);
      await interrupted.end('SIGINT', 130);
    } finally {
      interrupted.cleanUp();
      await whole.catch(() => {});
    }
    const { stdout, stderr } = await whole.catch((error) => error);
    expect(stdout, stderr).toMatch(/^\{/);
    const { ok, steps } = JSON.parse(stdout) as { ok: boolean; steps: { name: string }[] };
    expect(ok, stderr).toBe(true);
    const names = ['machines', 'connection', 'loss', 'messages', 'after', 'shutdown'];
    expect(steps.map(({ name }) => name)).toEqual(names);
  });

  test.each([
    [['--machines', '3'], /takes the number 2/],
    [['--machines', '2', '--rootless'], /needs namespaces/],
  ])('%s is refused', async (args, message) => {
    const demo = promisify(execFile)(process.execPath, [...DEMO, ...args], { cwd: REPOSITORY });
    await expect(demo).rejects.toMatchObject({ code: 1, stderr: expect.stringMatching(message) });
  });
});
