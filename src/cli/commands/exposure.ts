/**
 * `exposure list`: which services are exposed to which sites.
 * @module
 */
import type { Command } from 'commander';
import type { TermsAnswer } from '../../admin/index.ts';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';
import { table } from '../table.ts';

type ListOptions = GatewayOptions &
  OutputOptions & { readonly site?: string; readonly service?: string };

export function registerExposure(program: Command, io: Io): void {
  const parent = program
    .command('exposure')
    .summary('the exposures of the desired state')
    .description('Reads the exposures of a cloud gateway; "expose" and "unexpose" change them.');
  const command = parent
    .command('list')
    .summary('list the exposures')
    .description(
      'Lists the exposures to one site each, and those to all sites with certain labels.'
    )
    .option('--site <site>', 'only the exposures to this site')
    .option('--service <service>', 'only the exposures of this service');
  withJson(withGateway(command)).action(async (options: ListOptions) => {
    const { site, service } = options;
    const cloud = connectCloud(io, options);
    const exposures = await cloud.list('listExposures', { site, service });
    // One with a selector belongs to no site.
    const all = site === undefined ? await cloud.list('listSelectors') : [];
    const selectors = all.filter((each) => service === undefined || each.service === service);
    printResult(io, options, { exposures, selectors }, () => {
      const rows = [
        ...exposures.map((each) => [each.service, each.site, ...cellsOf(each)]),
        ...selectors.map((each) => [
          each.service,
          `${each.name}: ${labelsOf(each.siteSelector)}`,
          ...cellsOf(each),
        ]),
      ];
      const titles = ['service', 'site', 'clients', 'name', 'holds', 'kept by'];
      return table(titles, rows, 'nothing is exposed');
    });
  });
}

function cellsOf(terms: TermsAnswer): readonly string[] {
  const { clients, dnsName, service, notBefore, notAfter, owner } = terms;
  const from = notBefore === undefined ? '' : `from ${notBefore}`;
  const until = notAfter === undefined ? '' : `until ${notAfter}`;
  const holds = [from, until].filter((part) => part !== '').join(' ');
  return [clients?.join(', ') ?? 'all', dnsName ?? service, holds || 'always', owner];
}

function labelsOf(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([key, value]) => `${key}=${value}`);
  return pairs.length === 0 ? 'every site but the cloud' : pairs.join(', ');
}
