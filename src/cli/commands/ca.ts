/**
 * `ca status|prepare|activate|retire|crl|bundle`: the certification authority and its replacement.
 * @module
 */
import type { Command } from 'commander';
import type { CaAnswer, CaStatusAnswer, RolloverBody, SiteListAnswer } from '../../admin/index.ts';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import { usageError } from '../exit.ts';
import { readWord } from '../input.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printLines, printResult, withJson } from '../output.ts';
import { distance, pairs } from '../table.ts';

type PrepareOptions = GatewayOptions & { readonly certificate?: string; readonly key?: string };

export function registerCa(program: Command, io: Io): void {
  const parent = program
    .command('ca')
    .summary('the certification authority')
    .description(
      'Shows the certification authority of a cloud gateway, and replaces it step by step.'
    );
  const status = parent
    .command('status')
    .summary('show the CAs')
    .description('Shows the CAs, how far a replacement is, and what its next step waits for.');
  withJson(withGateway(status)).action(async (options: GatewayOptions & OutputOptions) => {
    const { result } = await connectCloud(io, options).call('getCa', {});
    printResult(io, options, result, () => caLines(result));
  });
  addPrepare(parent, io);
  const activate = parent
    .command('activate')
    .summary('make the prepared CA sign')
    .description(
      'Makes the prepared CA sign. The edges that are connected renew one after the other.'
    );
  withGateway(activate).action((options: GatewayOptions) =>
    step(io, options, { step: 'activate' })
  );
  const retire = parent
    .command('retire')
    .summary('trust the previous CA no more')
    .description('Ends the trust in the previous CA. It is refused while edges have not renewed.')
    .option('--force', 'close the tunnels of the edges that have not renewed');
  withGateway(retire).action((options: GatewayOptions & { readonly force?: boolean }) =>
    step(io, options, { step: 'retire', force: options.force })
  );
  for (const [name, operation, what] of [
    ['crl', 'getCrl', 'certificate revocation lists'],
    ['bundle', 'getTrustBundle', 'certificates of all CAs that are trusted'],
  ] as const) {
    const command = parent
      .command(name)
      .summary(`print the ${what}`)
      .description(`Prints the ${what}, as PEM.`);
    withGateway(command).action(async (options: GatewayOptions) => {
      io.stdout.write((await connectCloud(io, options).call(operation, {})).result);
    });
  }
}

function addPrepare(parent: Command, io: Io): void {
  const command = parent
    .command('prepare')
    .summary('make the next CA known')
    .description('Makes the next CA and gives its certificate to all edges that are connected.')
    .option('--certificate <file>', 'the certificate of a CA of your own, in PEM')
    .option('--key <file>', 'its private key, in PEM; - is standard input');
  withGateway(command).action(async ({ certificate, key, ...options }: PrepareOptions) => {
    if ((certificate === undefined) !== (key === undefined)) {
      throw usageError(
        'give both --certificate and --key, or none for a CA that the gateway makes'
      );
    }
    if (certificate === undefined || key === undefined)
      return step(io, options, { step: 'prepare' });
    const certificatePem = await readWord(io, 'the certificate', certificate);
    const privateKeyPem = await readWord(io, 'the private key', key);
    await step(io, options, { step: 'prepare', ca: { certificatePem, privateKeyPem } });
  });
}

/** Takes one step, and shows what the next one waits for. */
async function step(io: Io, options: GatewayOptions, body: RolloverBody): Promise<void> {
  const { result } = await connectCloud(io, options).call('rollCa', { body });
  printLines(io, caLines(result));
}

function caLines(ca: CaAnswer): readonly string[] {
  const { current, next, previous, crl, outdated, blocking, warning } = ca;
  const nextUpdate = crl && `number ${crl.number}, until ${crl.nextUpdate}`;
  return [
    ...pairs([
      ['signs', linesOf(current)],
      ['prepared', next && linesOf(next)],
      ['previous', previous && linesOf(previous)],
      ['revocation list', nextUpdate],
      ['not renewed', sitesOf(outdated)],
      ['block "retire"', sitesOf(blocking)],
    ]),
    ...(warning === undefined ? [] : [warning]),
    NEXT_STEPS[ca.rollover] ?? `the replacement of the CA is at: ${ca.rollover}`,
  ];
}

function linesOf({ root, notAfter, spki }: CaStatusAnswer): string {
  return `${root.subject}, until ${notAfter} (${distance(notAfter)}), key ${spki}`;
}

function sitesOf({ count, names }: SiteListAnswer): string | undefined {
  if (count === 0) return undefined;
  const more = count > names.length ? ` and ${count - names.length} more` : '';
  return `${names.join(', ')}${more}`;
}

const NEXT_STEPS: Readonly<Record<string, string>> = {
  none: 'the CA is not being replaced; "ca prepare" begins it',
  prepared: 'next: once every edge has been connected, "ca activate"',
  active: 'next: once every edge has renewed its certificate, "ca retire"',
};
