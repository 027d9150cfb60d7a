/** The tree of commands: its help, its refusals and its exit codes. */
import { Command, CommanderError } from 'commander';
import { describe, expect, test } from 'vitest';
import { CommandError, endingOf } from '../../src/cli/exit.ts';
import { createProgram, ExitCode } from '../../src/cli/index.ts';
import { printResult, withJson } from '../../src/cli/output.ts';
import { ConfigError, EnrolmentError, EnvironmentError, PresenceError } from '../../src/errors.ts';
import { VERSION } from '../../src/index.ts';
import { runCommand, TestIo } from './run-command.ts';

/** Every command of the tree, without the root. */
function commandsOf(command: Command): Command[] {
  return command.commands.flatMap((each) => [each, ...commandsOf(each)]);
}

describe('virtual-presence', () => {
  test('prints its version and its help on standard output', async () => {
    expect(await runCommand(['--version'])).toEqual({ code: 0, out: `${VERSION}\n`, err: '' });
    const help = await runCommand(['--help']);
    expect(help).toMatchObject({ code: 0, err: '' });
    expect(help.out).toMatch(/^Usage: virtual-presence /);
    expect(await runCommand(['help', 'cloud'])).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^Usage: virtual-presence cloud /),
    });
  });

  test('without a command prints its help on standard error', async () => {
    expect(await runCommand([])).toMatchObject({
      code: ExitCode.Usage,
      out: '',
      err: expect.stringMatching(/^Usage: /),
    });
  });

  test.each([
    [['clod'], "unknown command 'clod' (Did you mean cloud?)"],
    [['cloud'], "missing required argument 'file'"],
    [['cloud', 'a', 'b'], "too many arguments for 'cloud'. Expected 1 argument but got 2."],
    [
      ['cloud', 'a', '--lof-level', 'x'],
      "unknown option '--lof-level' (Did you mean --log-level?)",
    ],
    [['edge', 'a', '--log-level'], "option '--log-level <level>' argument missing"],
    [['-x'], "unknown option '-x'"],
  ])('refuses %j in one sentence', async (args, says) => {
    expect(await runCommand(args)).toEqual({
      code: ExitCode.Usage,
      out: '',
      err: `virtual-presence: ${says}\n`,
    });
  });

  const commands = commandsOf(createProgram(new TestIo())).filter((each) => each.name() !== 'help');
  test.each(commands.map((each) => [each.name(), each] as const))(
    '%s says what it does, and what each argument and option means',
    (_, command) => {
      expect(command.description()).toMatch(/^[A-Z].*\.$/s);
      expect(command.summary()).not.toBe('');
      for (const { description } of [...command.registeredArguments, ...command.options]) {
        expect(description).not.toBe('');
      }
    }
  );
});

describe('an error', () => {
  test.each<[exit: keyof typeof ExitCode, error: unknown]>([
    ['Usage', new ConfigError('dns.listen', 'is missing')],
    // An error of a worker's process has its code, and not its class.
    ['Usage', new PresenceError('ERR_PRESENCE_CONFIG', 'workers: too many')],
    ['Failed', new EnvironmentError('the port is in use')],
    ['Refused', new EnrolmentError('used', 'the enrolment token has been used')],
    ['Usage', new EnrolmentError('malformed', 'not an enrolment token')],
    ['Refused', new PresenceError('ERR_PRESENCE_NOT_FOUND', 'there is no site "x"')],
    ['NotReady', new CommandError(ExitCode.NotReady, 'no gateway listens')],
    ['Failed', new PresenceError('ERR_PRESENCE_OTHER', 'another')],
  ])('ends the command as %s, with its message', (exit, error) => {
    expect(endingOf(error)).toEqual({
      exitCode: ExitCode[exit],
      message: (error as Error).message,
    });
  });

  test('that is a fault of the program shows its stack', () => {
    const error = new TypeError('x is undefined');
    expect(endingOf(error)).toEqual({ exitCode: ExitCode.Failed, message: error.stack });
    expect(endingOf('thrown text')).toEqual({ exitCode: ExitCode.Failed, message: 'thrown text' });
  });

  test('of the command line loses what commander puts around it', () => {
    const error = new CommanderError(1, 'commander.x', "error: no 'a'\n(Did you mean b?)");
    expect(endingOf(error).message).toBe("no 'a' (Did you mean b?)");
  });
});

describe('--json', () => {
  const result = { sites: [{ name: 'site-a' }] };
  const print = (args: readonly string[]): string => {
    const io = new TestIo();
    const command = withJson(new Command('list')).action((options) =>
      printResult(io, options, result, () => ['site-a', 'site-b'])
    );
    command.parse(args, { from: 'user' });
    return io.out;
  };

  test('prints one document that begins with schemaVersion', () => {
    const text = print(['--json']);
    expect(Object.keys(JSON.parse(text))).toEqual(['schemaVersion', 'sites']);
    expect(JSON.parse(text)).toEqual({ schemaVersion: 1, ...result });
  });

  test('without it, lines are printed', () => {
    expect(print([])).toBe('site-a\nsite-b\n');
  });
});
