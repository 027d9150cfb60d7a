/**
 * `audit verify`: the hash chain of an audit log.
 * @module
 */
import { type Command, InvalidArgumentError } from 'commander';
import { type AuditHead, verifyAuditLog } from '../../audit/index.ts';
import { CommandError, ExitCode } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';
import { countOf } from '../table.ts';

export function registerAudit(program: Command, io: Io): void {
  const parent = program
    .command('audit')
    .summary('the audit log')
    .description('Checks the audit log of a cloud gateway.');
  const command = parent
    .command('verify')
    .summary('find changed, missing and inserted lines')
    .description(
      'Checks that no line of an audit log was changed, removed or inserted. Only with --head it finds that the end was cut off.'
    )
    .argument('<file>', 'the log: audit.jsonl in the state directory')
    .option('--head <seq:hash>', 'a last line of before, as "status" shows it', parseHead);
  withJson(command).action(
    async (path: string, options: OutputOptions & { readonly head?: AuditHead }) => {
      const verdict = await verifyAuditLog(path, { head: options.head });
      const { ok } = verdict;
      if (ok || options.json === true) {
        const intact = ok
          ? `${path} is intact: ${countOf(verdict.lines, 'line')}, head ${verdict.head.seq}:${verdict.head.hash}`
          : '';
        printResult(io, options, verdict, () => [intact]);
      }
      if (ok) return;
      throw new CommandError(ExitCode.Failed, `${path}:${verdict.line}: ${verdict.message}`);
    }
  );
}

function parseHead(text: string): AuditHead {
  const [, seq, hash] = /^([0-9]{1,15}):([0-9a-f]{64})$/.exec(text) ?? [];
  if (seq !== undefined && hash !== undefined) return { seq: Number(seq), hash };
  throw new InvalidArgumentError(
    'Expected a number, a colon and 64 hexadecimal digits, as "status" shows it.'
  );
}
