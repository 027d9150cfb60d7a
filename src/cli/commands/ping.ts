/**
 * `ping [SITE]`: the round-trip time of a tunnel, now.
 * @module
 */
import type { Command } from 'commander';
import type { PingAnswer, PingBody } from '../../admin/index.ts';
import { parseCount, parseMilliseconds } from '../arguments.ts';
import {
  connectCloud,
  connectEdge,
  type GatewayOptions,
  isProblem,
  withGateway,
} from '../connection.ts';
import { CommandError, ExitCode, endedWith, usageError } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';

type Times = Omit<PingAnswer, 'site' | 'connections'>;
type MeasureOptions = GatewayOptions &
  OutputOptions & { readonly count?: number; readonly interval?: number };

export function registerPing(program: Command, io: Io): void {
  const command = program
    .command('ping')
    .summary('measure the round-trip time of a tunnel')
    .description(
      'Measures the round-trip time between the cloud gateway and the edge gateway of a site, on each connection of ' +
        'the tunnel. The exit code is 1 if nothing was answered, and 4 if there is no tunnel.'
    )
    .argument('[site]', 'the site; not at an edge gateway')
    .option('--count <number>', 'how many times, 1 to 100; default 5', parseCount)
    .option(
      '--interval <duration>',
      'the time from one to the next, 0 to 10s; default 200ms',
      parseMilliseconds
    );
  withJson(withGateway(command)).action(
    async (site: string | undefined, options: MeasureOptions) => {
      const { count, interval: intervalMs } = options;
      const answer = await measure(io, options, site, { count, intervalMs });
      printResult(io, options, answer, () => [
        ...answer.connections.map((times, i) => `connection ${i + 1}: ${textOf(times)}`),
        `${answer.site}: ${textOf(answer)}`,
      ]);
      if (answer.received === 0) throw endedWith(ExitCode.Failed);
    }
  );
}

async function measure(
  io: Io,
  options: GatewayOptions,
  site: string | undefined,
  body: PingBody
): Promise<PingAnswer> {
  try {
    if (site === undefined) return (await connectEdge(io, options).call('ping', { body })).result;
    return (await connectCloud(io, options).call('ping', { params: { site }, body })).result;
  } catch (error) {
    const { message, cause } = error as Error;
    if (isProblem(cause, 'ERR_PRESENCE_ADMIN_REQUEST')) {
      throw usageError(
        site === undefined
          ? 'a cloud gateway has a tunnel to each site: name the site, as in "ping site-a"'
          : 'an edge gateway has no tunnel but that to its cloud: leave the site out',
        { cause }
      );
    }
    if (!isProblem(cause, 'ERR_PRESENCE_ENVIRONMENT')) throw error;
    throw new CommandError(ExitCode.NotReady, message, { cause });
  }
}

function textOf({ sent, received, minMs, avgMs, maxMs }: Times): string {
  const answered = `${received} of ${sent} answered`;
  if (minMs === undefined || avgMs === undefined || maxMs === undefined) return answered;
  const [min, avg, max] = [minMs, avgMs, maxMs].map((ms) => ms.toFixed(2));
  return `${answered}, ${min} ms to ${max} ms, ${avg} ms on average`;
}
