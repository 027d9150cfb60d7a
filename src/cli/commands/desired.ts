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

export function registerDesired(program: Command, io: Io): void {
  const parent = program
    .command('desired')
    .summary('the desired state as a whole')
    .description('Shows or replaces all sites, services and exposures of a cloud gateway.');
  const show = parent
    .command('show')
    .summary('show the desired state')
    .description(
      'Shows all sites, services and exposures in YAML, also those of the configuration file.'
    );
  withJson(withGateway(show)).action(async (options: GatewayOptions & OutputOptions) => {
    const { result } = await connectCloud(io, options).call('getDesired', {});
    printResult(io, options, result, () => [stringify(result).trimEnd()]);
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
    const { sites, services, exposures } = (await cloud.call('putDesired', { body })).result;
    const counts = [
      countOf(sites.length, 'site'),
      countOf(services.length, 'service'),
      countOf(exposures.length, 'exposure'),
    ];
    printLines(io, [`the desired state has ${counts.join(', ')} now`]);
  });
}
