/** The scripts by which shells complete commands: the shells themselves run them. */
import { spawnSync } from 'node:child_process';
import { describe, expect, test } from 'vitest';
import { ExitCode } from '../../src/cli/index.ts';
import { runCommand } from './run-command.ts';

type Shell = 'bash' | 'zsh' | 'fish';

/** For each shell a program that prints what it proposes for the words `$1` and following, one proposal a line. */
const ASK: Readonly<Record<Shell, readonly string[]>> = {
  bash: [
    ...['--norc', '-c'],
    `eval "$SCRIPT"; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _virtual_presence
     printf "%s\\n" "\${COMPREPLY[@]}"`,
    'bash',
  ],
  // Outside the line editor the functions of its completion system do nothing, so they are replaced.
  zsh: [
    ...['-f', '-c'],
    `compdef() { :; }; _files() { :; }
     compadd() { shift; print -l -- "$@"; }
     _describe() { print -l -- "\${(@)choices%%:*}"; }
     eval "$SCRIPT"; words=("$@"); CURRENT=$#; _virtual_presence`,
    'zsh',
  ],
  fish: [
    '--no-config',
    '-c',
    'echo $SCRIPT | source; complete -C (string join " " -- $argv) | string replace -r "\\t.*" ""',
  ],
};

const WORDS: readonly (readonly [words: readonly string[], proposals: readonly string[]])[] = [
  [[''], ['init', 'cloud', 'edge', 'completion']],
  [
    ['init', ''],
    ['cloud', 'edge'],
  ],
  [
    ['init', 'cloud', '--'],
    ['--device', '--force', '--dry-run', '--tunnel'],
  ],
  [
    ['cloud', '--log-format', ''],
    ['text', 'json'],
  ],
  [
    ['cloud', '--log-format', 'json', '--log-level', ''],
    ['debug', 'info', 'warn', 'error'],
  ],
  [
    ['completion', ''],
    ['bash', 'zsh', 'fish'],
  ],
];

describe.each(Object.keys(ASK) as Shell[])('%s', (shell) => {
  const isThere = spawnSync(shell, ['-c', 'true']).status === 0;
  const title = isThere ? '' : ` (skipped: needs the Debian package ${shell})`;

  test.skipIf(!isThere && process.env.CI === undefined)(
    `proposes commands, options and choices${title}`,
    async () => {
      const { code, out } = await runCommand(['completion', shell]);
      expect(code).toBe(0);
      for (const [words, proposals] of WORDS) {
        const { stdout, stderr } = spawnSync(shell, [...ASK[shell], 'virtual-presence', ...words], {
          env: { ...process.env, SCRIPT: out },
          encoding: 'utf8',
        });
        expect(stderr).toBe('');
        const proposed = stdout.split('\n').filter((line) => line !== '');
        expect(proposed, words.join(' ')).toEqual(expect.arrayContaining([...proposals]));
        for (const other of ['init', 'tun', 'text']) {
          if (!proposals.includes(other)) expect(proposed, words.join(' ')).not.toContain(other);
        }
      }
    }
  );
});

test('another shell is refused', async () => {
  expect(await runCommand(['completion', 'tcsh'])).toMatchObject({
    code: ExitCode.Usage,
    err: expect.stringContaining('Allowed choices are bash, zsh, fish'),
  });
});
