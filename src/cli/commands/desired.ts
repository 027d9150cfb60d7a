/**
 * `desired show|apply`: the desired state as a whole.
 * @module
 */
import type { Command } from 'commander';
import { stringify } from 'yaml';
import { CLOUD_OPERATIONS } from '../../admin/index.ts';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printLines, printResult, withJson } from '../output.ts';
import { fileOf } from '../records.ts';
import { countOf } from '../table.ts';

type ShowOptions = GatewayOptions & OutputOptions & { readonly all?: boolean };

export function registerDesired(program: Command, io: Io): void {
  const parent = program
    .command('desired')
    .summary('the desired state as a whole')
    .description('Shows or replaces all sites, services and exposures of a cloud gateway.');
  const show = parent
    .command('show')
    .summary('show the desired state')
    .description(
      'Shows the sites, services and exposures that "desired apply" replaces, in YAML, as that takes them.'
    )
    .option('--all', 'also those of the configuration file, which "desired apply" refuses');
  withJson(withGateway(show)).action(async ({ all, ...options }: ShowOptions) => {
    const query = all === true ? {} : { owner: 'admin' as const };
    const { result } = await connectCloud(io, options).call('getDesired', { query });
    const kept =
      all === true ? '# kept by: admin and file' : '# kept by: admin; --all shows the others';
    printResult(io, options, result, () => [kept, stringify(result).trimEnd()]);
  });
  const apply = parent
    .command('apply')
    .summary('replace the desired state')
    .description(
      'Replaces all sites, services and exposures that were set by this command and through the admin interface. ' +
        'Those of the configuration file stay.'
    )
    .argument('<file>', 'the desired state, in YAML or JSON; - is standard input');
  withGateway(apply).action(async (path: string, options: GatewayOptions) => {
    const cloud = connectCloud(io, options);
    const body = (await fileOf(io, path)).plain(CLOUD_OPERATIONS.putDesired.body) as object;
    const { result } = await cloud.call('putDesired', { body });
    const { sites, services, exposures, written, removed } = result;
    const counts = [
      countOf(sites, 'site'),
      countOf(services, 'service'),
      countOf(exposures, 'exposure'),
    ].join(', ');
    const changes = `${countOf(written, 'record')} written, ${removed} removed`;
    printLines(io, [`${counts} are kept by admin now (${changes})`]);
  });
}
