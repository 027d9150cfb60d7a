/**
 * `token create|list|delete` at a cloud gateway, and `enrol` at an edge: how an edge gateway gets its certificate.
 * @module
 */
import { closeSync, openSync, unlinkSync, writeSync } from 'node:fs';
import type { Command } from 'commander';
import { parseSeconds } from '../arguments.ts';
import { connectCloud, connectEdge, type GatewayOptions, withGateway } from '../connection.ts';
import { usageError } from '../exit.ts';
import { readWord } from '../input.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printLines, printResult, withJson } from '../output.ts';
import { distance, table } from '../table.ts';

type CreateOptions = GatewayOptions & { readonly lifetime?: number; readonly out?: string };
type ListOptions = GatewayOptions & OutputOptions & { readonly site?: string };

export function registerToken(program: Command, io: Io): void {
  const parent = program
    .command('token')
    .summary('the enrolment tokens of edge gateways')
    .description('Makes, lists and deletes the tokens with which edge gateways enrol once.');
  addCreate(parent, io);
  const list = parent
    .command('list')
    .summary('list the tokens')
    .description('Lists the tokens, without their secrets.')
    .option('--site <site>', 'only the tokens of this site');
  withJson(withGateway(list)).action(async ({ site, ...options }: ListOptions) => {
    const tokens = await connectCloud(io, options).list('listTokens', { site });
    printResult(io, options, { tokens }, () => {
      const rows = tokens.map(({ id, site: of, state, expiresAt, usedAt }) => [
        id,
        of,
        state,
        distance(expiresAt),
        usedAt ?? '-',
      ]);
      return table(['id', 'site', 'state', 'expires', 'used'], rows, 'there are no tokens');
    });
  });
  const remove = parent
    .command('delete')
    .summary('delete a token')
    .description('Deletes a token, so that nobody enrols with it any more.')
    .argument('<id>', 'its id in "token list"');
  withGateway(remove).action(async (id: string, options: GatewayOptions) => {
    const params = { token: id };
    const { result } = await connectCloud(io, options).call('deleteToken', { params });
    printLines(io, [`the token ${result.id} of "${result.site}" is deleted`]);
  });
}

export function registerEnrol(program: Command, io: Io): void {
  const command = program
    .command('enrol')
    .summary('give an edge gateway a token')
    .description(
      'Makes an edge gateway that runs redeem a token: for its first certificate, or for another one.'
    )
    .requiredOption('--token-file <file>', 'the file with the token; - is standard input');
  withGateway(command).action(async (options: GatewayOptions & { readonly tokenFile: string }) => {
    const token = await readWord(io, 'the token', options.tokenFile);
    const { result } = await connectEdge(io, options).call('enrol', { body: { token } });
    printLines(io, [
      `the edge gateway of "${result.site}" has its certificate; it is ${result.state}`,
    ]);
  });
}

function addCreate(parent: Command, io: Io): void {
  const command = parent
    .command('create')
    .summary('make a token')
    .description(
      'Makes a token with which the edge gateway of a site enrols once, and prints it. It is never shown again.'
    )
    .argument('<site>', 'the site of the edge gateway')
    .option('--lifetime <duration>', 'how long it is valid, at most 30d; default 1h', parseSeconds)
    .option('--out <file>', 'write it into a new file of the mode 0600 instead');
  withGateway(command).action(async (site: string, options: CreateOptions) => {
    const { lifetime, out } = options;
    const body = { site, ...(lifetime !== undefined && { lifetimeSeconds: lifetime }) };
    const cloud = connectCloud(io, options);
    const create = async () => (await cloud.call('createToken', { body })).result.token;
    if (out === undefined) return printLines(io, [await create()]);
    // A token that cannot be written is of no use, so the file is made first.
    const file = openNew(out);
    try {
      writeSync(file, `${await create()}\n`);
    } catch (error) {
      unlinkSync(out);
      throw error;
    } finally {
      closeSync(file);
    }
    printLines(io, [`the token of "${site}" is in ${out}`]);
  });
}

function openNew(path: string): number {
  try {
    return openSync(path, 'wx', 0o600);
  } catch (cause) {
    const { code, message } = cause as NodeJS.ErrnoException;
    const reason = code === 'EEXIST' ? 'it exists already' : message;
    throw usageError(`the token cannot be written into ${path}: ${reason}`);
  }
}
