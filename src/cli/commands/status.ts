/**
 * `status [SITE]`: how a gateway is, and what is wrong with it.
 * @module
 */
import type { Command } from 'commander';
import type { CloudOperations, CloudStatusAnswer, EdgeStatusAnswer } from '../../admin/index.ts';
import {
  type Connection,
  connectCloud,
  type GatewayOptions,
  isProblem,
  withGateway,
} from '../connection.ts';
import { CommandError, ExitCode } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';
import {
  cloudLines,
  cloudProblems,
  edgeLines,
  edgeProblems,
  problemLines,
  siteLines,
} from '../status-text.ts';

type StatusOptions = GatewayOptions & OutputOptions;

export function registerStatus(program: Command, io: Io): void {
  const command = program
    .command('status')
    .summary('show how a gateway is')
    .description(
      'Shows the sites, tunnels, certificates and pools of a cloud gateway, or the tunnel and names of an edge gateway. ' +
        'It ends with what is wrong, and what to do.'
    )
    .argument('[site]', 'only this site, with all that is known of it');
  withJson(withGateway(command)).action(
    async (site: string | undefined, options: StatusOptions) => {
      const status = await askStatus(connectCloud(io, options), site);
      if ('sites' in status) printCloud(io, options, status, site);
      else printEdge(io, options, status, site);
    }
  );
}

/** An edge gateway has this operation too, with another answer and without the site. */
async function askStatus(
  gateway: Connection<CloudOperations>,
  site: string | undefined
): Promise<CloudStatusAnswer | EdgeStatusAnswer> {
  try {
    return (await gateway.call('getStatus', { query: { site } })).result;
  } catch (error) {
    const isOfEdge = isProblem((error as Error).cause, 'ERR_PRESENCE_ADMIN_REQUEST');
    if (site === undefined || !isOfEdge) throw error;
    return (await gateway.call('getStatus', {})).result;
  }
}

function printCloud(
  io: Io,
  options: StatusOptions,
  status: CloudStatusAnswer,
  site: string | undefined
): void {
  const problems = cloudProblems(status);
  const details = site === undefined ? [] : status.sites.flatMap(siteLines);
  printResult(io, options, { gateway: 'cloud', ...status, problems }, () => [
    ...cloudLines(status),
    ...details,
    ...problemLines(problems),
  ]);
}

function printEdge(
  io: Io,
  options: StatusOptions,
  status: EdgeStatusAnswer,
  site: string | undefined
): void {
  if (site !== undefined && site !== status.site) {
    const message = `this is the edge gateway of ${status.site ?? 'no site yet'}, which knows nothing of "${site}"`;
    throw new CommandError(ExitCode.Refused, message);
  }
  const problems = edgeProblems(status);
  printResult(io, options, { gateway: 'edge', ...status, problems }, () => [
    ...edgeLines(status),
    ...problemLines(problems),
  ]);
}
