/**
 * `explain FROM TO`: whether a flow or a packet passes, what stops it, and what would mend that.
 * @module
 */
import type { Command } from 'commander';
import type {
  CloudOperations,
  EdgeExplainAnswer,
  EdgeExplainBody,
  ExplainAnswer,
  ExplainBody,
  FixAnswer,
} from '../../admin/index.ts';
import { IpAddress } from '../../base/address.ts';
import { parseFlow } from '../../diagnosis/index.ts';
import { CLOUD } from '../../registry/index.ts';
import { parsePort } from '../arguments.ts';
import {
  type Connection,
  connectCloud,
  connectEdge,
  type GatewayOptions,
  isProblem,
  withGateway,
} from '../connection.ts';
import { CommandError, ExitCode, endedWith, usageError } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printResult, withJson } from '../output.ts';

type ExplainOptions = GatewayOptions &
  OutputOptions & {
    readonly packet?: string;
    readonly site?: string;
    readonly sourcePort?: number;
  };

type Answer = ExplainAnswer | EdgeExplainAnswer;

export function registerExplain(program: Command, io: Io): void {
  const command = program
    .command('explain')
    .summary('whether a flow passes, and what would mend it')
    .description(
      'Says whether a flow passes, stage by stage, what stops it, and what would mend that. An edge gateway says ' +
        'whether the flow gets to the cloud. The exit code is 0 if it passes, and 1 if it does not.'
    )
    .argument(
      '[from]',
      'a site and a host or service of it, such as site-b/10.0.0.9; at an edge gateway the address alone'
    )
    .argument('[to]', 'a service, a name or an address, such as rabbitmq:5672/tcp or rabbitmq/icmp')
    .option('--packet <hex>', 'the bytes of an IP packet, instead of FROM and TO')
    .option('--site <site>', 'where the packet comes from; not at an edge gateway')
    .option('--source-port <port>', 'the port of the client; default 49152', parsePort);
  withJson(withGateway(command)).action(
    async (from: string | undefined, to: string | undefined, options: ExplainOptions) => {
      const answer = await ask(io, from, to, options);
      printResult(io, options, answer, () => explanationLines(answer));
      if (!answer.passes) throw endedWith(ExitCode.Failed);
    }
  );
}

/** Asks the gateway of the kind that the arguments are for. */
async function ask(
  io: Io,
  from: string | undefined,
  to: string | undefined,
  options: ExplainOptions
): Promise<Answer> {
  const { packet, site, sourcePort } = options;
  if (packet !== undefined) {
    if (from !== undefined) throw usageError('FROM and TO exclude --packet');
    if (sourcePort !== undefined) throw usageError('--source-port excludes --packet');
    if (site === undefined) return askEdge(io, options, { packet });
    return askCloud(io, options, { from: { site }, packet });
  }
  if (from === undefined || to === undefined) {
    throw usageError('give FROM and TO, such as site-b/10.0.0.9 rabbitmq:5672/tcp, or --packet');
  }
  if (site !== undefined) throw usageError('--site needs --packet: FROM names the site');
  const more = sourcePort === undefined ? {} : { sourcePort };
  const address = addressOf(from);
  if (address === undefined) return askCloud(io, options, { ...parseFlow(from, to), ...more });
  return askEdge(io, options, { ...parseFlow('edge', to), from: address, ...more });
}

async function askCloud(io: Io, options: GatewayOptions, body: ExplainBody): Promise<Answer> {
  const cloud = connectCloud(io, options);
  const asked = cloud.call('explain', { body });
  const { result } = await asked.catch((error) => rethrow(error, cloud, 'cloud'));
  return result;
}

async function askEdge(io: Io, options: GatewayOptions, body: EdgeExplainBody): Promise<Answer> {
  const asked = connectEdge(io, options).call('explain', { body });
  const { result } = await asked.catch((error) =>
    rethrow(error, connectCloud(io, options), 'edge')
  );
  return result;
}

/** Both kinds of gateway have this operation, with other bodies: says so if the gateway is of the other kind. */
async function rethrow(
  error: unknown,
  gateway: Connection<CloudOperations>,
  asked: 'cloud' | 'edge'
): Promise<never> {
  if (!(error instanceof CommandError) || error.exitCode !== ExitCode.Refused) throw error;
  const kind = await kindOf(gateway);
  if (kind === asked) throw error;
  throw usageError(
    kind === 'cloud'
      ? 'a cloud gateway needs the site of the sender: FROM is such as site-b/10.0.0.9, and --packet needs --site'
      : 'an edge gateway explains for its own site: FROM is an address of it, and --packet has no --site'
  );
}

/** An edge gateway has `getStatus` too, but it takes no site. */
async function kindOf(gateway: Connection<CloudOperations>): Promise<'cloud' | 'edge'> {
  try {
    await gateway.find('getStatus', { query: { site: CLOUD } });
    return 'cloud';
  } catch (error) {
    if (isProblem((error as Error).cause, 'ERR_PRESENCE_ADMIN_REQUEST')) return 'edge';
    throw error;
  }
}

/** Returns the text without brackets if it is an address. */
function addressOf(text: string): IpAddress | undefined {
  try {
    return IpAddress.parse(text.replace(/^\[(.*)\]$/, '$1'));
  } catch {
    return undefined;
  }
}

function explanationLines({ summary, stages, fix }: Answer): string[] {
  const width = stages.reduce((most, { name }) => Math.max(most, name.length), 0);
  return [
    summary,
    ...stages.map(
      ({ name, outcome, reason }) => `  ${MARKS[outcome]}   ${name.padEnd(width)}  ${reason}`
    ),
    ...(fix === undefined ? [] : fixLines(fix)),
  ];
}

function fixLines({ why, command }: FixAnswer): string[] {
  return command === undefined ? [`fix: ${why}`] : [`fix: ${command}`, `     ${why}`];
}

const MARKS = { ok: 'ok', no: 'no', unknown: '--' } as const;
