/**
 * The messages about a cloud gateway that cannot run in several processes: one sentence each.
 */
import { afterAll, describe, expect, test } from 'vitest';
import {
  type Config,
  cloudConfig,
  killGateways,
  outcome,
  Workspace,
  writeConfig,
} from '../support/gateway-process.ts';
import { whatIsMissing } from '../support/network.ts';

const workspace = new Workspace();
afterAll(async () => {
  await killGateways();
  workspace.remove();
});

const skipReason = whatIsMissing({});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const title = isSkipped ? ` (skipped: ${skipReason})` : '';

const TUN = { type: 'tun', name: 'vp0' };

describe('a cloud gateway’s file', () => {
  const faults: [change: Config, says: RegExp][] = [
    [{ workers: 0 }, /:\d+: workers: expected a whole number from 1 to 64/],
    [{ workers: 65, device: TUN }, /:\d+: workers: expected a whole number from 1 to 64/],
    [{ workers: 'many' }, /:\d+: workers: expected a whole number from 1 to 64, or auto/],
    [{ workers: 2 }, /:\d+: workers: 2 need a device of type tun, one for each$/],
    [
      { workers: 3, device: TUN, tunnel: '127.0.0.1:65534' },
      /:\d+: tunnel: 3 workers need as many ports, up to 65536$/,
    ],
    [
      {
        workers: 2,
        device: TUN,
        tunnel: '127.0.0.1:7443',
        enrolment: { listen: '127.0.0.1:7444', endpoints: ['https://127.0.0.1:7444'] },
      },
      /:\d+: enrolment.listen: the tunnels of 2 workers take 7443 to 7444$/,
    ],
    [
      {
        workers: 2,
        device: TUN,
        enrolment: { listen: 'shared', endpoints: ['https://127.0.0.1:7443'] },
      },
      /: enrolment.listen: the tunnel's port can be shared by one worker only, not by 2: give a host and port$/,
    ],
  ];
  test.each(faults)('is refused with %j', async (change, says) => {
    const config = { ...cloudConfig(), ...change };
    const path = writeConfig(workspace.newDirectory(), config);
    const { code, complaint } = await outcome('cloud', [path]);
    expect(complaint).toMatch(/^virtual-presence: [^\n]*$/);
    expect(complaint).toMatch(says);
    expect(code).toBe(2);
  });

  test.skipIf(isSkipped)(
    `is refused with the message of the process that cannot open its TUN${title}`,
    async () => {
      // The name of the second TUN, whose number has one digit more, is too long for Linux.
      const device = { ...TUN, name: 'abcdefghijklmn9' };
      const config = { ...cloudConfig(), workers: 2, device };
      const path = writeConfig(workspace.newDirectory(), config);
      const user = process.getuid?.() === 0 ? [] : ['--user', '--map-root-user'];
      const wrapper = ['unshare', ...user, '--net'];
      const { code, complaint } = await outcome('cloud', [path], wrapper);
      expect(complaint).toMatch(
        /^virtual-presence: "abcdefghijklmn10" is not an interface name: [^\n]*$/
      );
      expect(code).toBe(1);
    }
  );
});
