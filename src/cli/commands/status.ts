/**
 * `status [SITE]`: how a gateway is, and what is wrong with it.
 * @module
 */
import type { Command } from 'commander';
import type { CloudStatusAnswer, EdgeStatusAnswer } from '../../admin/index.ts';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
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
      const { result } = await connectCloud(io, options).call('getStatus', {});
      // An edge gateway has this operation too, with another answer.
      const status = result as CloudStatusAnswer | EdgeStatusAnswer;
      if ('sites' in status) printCloud(io, options, status, site);
      else printEdge(io, options, status, site);
    }
  );
}

function printCloud(
  io: Io,
  options: StatusOptions,
  whole: CloudStatusAnswer,
  site: string | undefined
): void {
  const sites = whole.sites.filter(({ name }) => site === undefined || name === site);
  if (site !== undefined && sites.length === 0) {
    throw new CommandError(ExitCode.Refused, `there is no site "${site}"`);
  }
  const status = { ...whole, sites };
  const problems = cloudProblems(status);
  const details = site === undefined ? [] : sites.flatMap(siteLines);
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
