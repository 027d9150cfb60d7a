/**
 * `config check FILE`, `config show FILE` and `config schema cloud|edge`.
 * @module
 */
import { readFileSync } from 'node:fs';
import { Argument, type Command } from 'commander';
import { stringify } from 'yaml';
import { type CheckedCloud, type CheckedEdge, readWhole } from '../checked-file.ts';
import { type Finding, fail, linesOf, ok } from '../checks/finding.ts';
import { systemFindings } from '../checks/system.ts';
import { effectiveOf } from '../effective.ts';
import { CommandError, ExitCode, endingOf } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';
import { packageFile } from '../package-file.ts';

interface CheckOptions extends OutputOptions {
  readonly system?: boolean | undefined;
}

export function registerConfig(program: Command, io: Io): void {
  const config = program
    .command('config')
    .summary('check and show the configuration of a gateway')
    .description(
      'Checks and shows the configuration of a gateway. Nothing is started, and no file is written.'
    );
  const check = config
    .command('check')
    .summary('check a configuration, and with --system the machine')
    .description(
      'Checks a configuration as the gateway reads it. With --system it also checks whether this machine can run it: the device, forwarding, ports, clock, files, and at an edge the way to the cloud. Exit code 2: something fails.'
    )
    .argument('<file>', 'a configuration, in YAML or JSON')
    .option('--system', 'check the machine too');
  withJson(check).action((path: string, options: CheckOptions) => runCheck(io, path, options));

  const show = config
    .command('show')
    .summary('print the configuration that is in force')
    .description(
      'Prints a configuration with the defaults of everything that it leaves out. Secrets are not shown.'
    )
    .argument('<file>', 'a configuration, in YAML or JSON');
  withJson(show).action(async (path: string, options: OutputOptions) => {
    const effective = effectiveOf(await readWhole(path));
    printResult(io, options, { config: effective }, () =>
      stringify(effective).trimEnd().split('\n')
    );
  });

  config
    .command('schema')
    .summary('print the JSON Schema of a configuration')
    .description('Prints the JSON Schema of a configuration, for editors.')
    .addArgument(new Argument('<kind>', 'the kind of the gateway').choices(['cloud', 'edge']))
    .action((kind: string) => {
      io.stdout.write(readFileSync(packageFile(`schemas/${kind}.json`), 'utf8'));
    });
}

async function runCheck(io: Io, path: string, options: CheckOptions): Promise<void> {
  const findings: Finding[] = [];
  const print = (): void =>
    printResult(io, options, { status: worstOf(findings), findings }, () => linesOf(findings));
  let checked: CheckedCloud | CheckedEdge;
  try {
    checked = await readWhole(path);
  } catch (error) {
    if (options.json !== true) throw error;
    const { message = '' } = endingOf(error);
    findings.push(fail('configuration', message, 'correct the file, and check it again'));
    print();
    throw error;
  }
  findings.push(ok('configuration', summaryOf(path, checked)));
  if (options.system === true) findings.push(...(await systemFindings(checked)));
  print();
  const failed = findings.filter(({ status }) => status === 'fail').length;
  if (failed === 0) return;
  const message = `${failed} of ${findings.length} checks fail`;
  throw new CommandError(ExitCode.Usage, message);
}

function worstOf(findings: readonly Finding[]): Finding['status'] {
  const has = (status: Finding['status']) => findings.some((each) => each.status === status);
  return has('fail') ? 'fail' : has('warn') ? 'warn' : 'ok';
}

function summaryOf(path: string, checked: CheckedCloud | CheckedEdge): string {
  if (checked.side === 'edge') return `${path} is the configuration of an edge gateway`;
  const { sites, services, exposures, selectors } = checked.desired;
  const parts = [
    count(sites.length, 'site'),
    count(services.length, 'service'),
    count(exposures.length + selectors.length, 'exposure'),
  ];
  return `${path} is the configuration of a cloud gateway, with ${parts.join(', ')}`;
}

function count(number: number, what: string): string {
  return `${number} ${what}${number === 1 ? '' : 's'}`;
}
