/**
 * `whois`, `lookup`, `presence list` and `path list`: what is in force.
 * @module
 */
import type { Command } from 'commander';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';
import { listOf, table } from '../table.ts';

type ReadOptions = GatewayOptions & OutputOptions;
type SiteOptions = ReadOptions & { readonly site?: string };

export function registerInspect(program: Command, io: Io): void {
  addWhois(program, io);
  addLookup(program, io);
  const presence = program
    .command('presence')
    .summary('the presences in use')
    .description('Reads the addresses that stand for hosts of other sites.');
  addPresences(presence, io);
  const path = program
    .command('path')
    .summary('the paths of packets')
    .description('Reads the paths that have carried packets.');
  addPaths(path, io);
}

function addWhois(program: Command, io: Io): void {
  const command = program
    .command('whois')
    .summary('which host an address stands for')
    .description('Says which host of which site an address at a site stands for.')
    .argument('<site>', 'the site where the address is')
    .argument('<address>', 'the address');
  withJson(withGateway(command)).action(
    async (site: string, address: string, options: ReadOptions) => {
      const query = { site, address } as never;
      const { result } = await connectCloud(io, options).call('whois', { query });
      printResult(io, options, result, () => {
        const { services } = result;
        const offers = services.length === 0 ? 'a client' : `offers ${listOf(services)}`;
        return [`${address} at "${site}" is ${result.address} of "${result.site}", ${offers}`];
      });
    }
  );
}

function addLookup(program: Command, io: Io): void {
  const command = program
    .command('lookup')
    .summary('what a name resolves to')
    .description(
      'Says what a name resolves to at a site. An edge gateway answers for its own site.'
    )
    .argument('<name>', 'a full domain name, or a name in the zone of the site')
    .option('--site <site>', 'the site; default: that of the gateway');
  withJson(withGateway(command)).action(async (name: string, options: SiteOptions) => {
    const query = { name, site: options.site };
    // An edge gateway has this operation too.
    const { hosts } = (await connectCloud(io, options).call('lookup', { query })).result;
    printResult(io, options, { hosts }, () => {
      const rows = hosts.map((host) => [host.name, listOf(host.addresses), listOf(host.ports)]);
      return table(['name', 'addresses', 'ports'], rows, `"${name}" is not known there`);
    });
  });
}

function addPresences(parent: Command, io: Io): void {
  const command = parent
    .command('list')
    .summary('list the presences')
    .description('Lists the addresses in use, with the host that each stands for.')
    .option('--site <site>', 'only the addresses at this site');
  withJson(withGateway(command)).action(async ({ site, ...options }: SiteOptions) => {
    const presences = await connectCloud(io, options).list('listPresences', { site });
    printResult(io, options, { presences }, () => {
      const rows = presences.map(({ realm, address, of }) => [
        realm,
        address,
        of.address,
        of.realm,
      ]);
      return table(['site', 'address', 'stands for', 'of'], rows, 'no address is in use');
    });
  });
}

function addPaths(parent: Command, io: Io): void {
  const command = parent
    .command('list')
    .summary('list the paths')
    .description('Lists the paths that have carried packets, with their counters.')
    .option('--site <site>', 'only the paths from and to this site');
  withJson(withGateway(command)).action(async ({ site, ...options }: SiteOptions) => {
    const paths = await connectCloud(io, options).list('listPaths', { site });
    printResult(io, options, { paths }, () => {
      const rows = paths.map((path) => [
        path.ingress,
        `${path.source} > ${path.destination}`,
        path.egress,
        `${path.newSource} > ${path.newDestination}`,
        String(path.packets),
        String(path.bytes),
      ]);
      const titles = ['from', 'there', 'to', 'here', 'packets', 'bytes'];
      return table(titles, rows, 'no path has carried packets');
    });
  });
}
