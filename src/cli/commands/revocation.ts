/**
 * `revoke`, `reinstate` and `revocation list`: cuts a site, a certificate or a key off, and lets a site come back.
 * @module
 */
import type { Command } from 'commander';
import type {
  CloudOperations,
  ReceiptAnswer,
  RevocationBody,
  ScopeAnswer,
  UnconfirmedAnswer,
} from '../../admin/index.ts';
import { type Connection, connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import { CommandError, ExitCode, endedWith, usageError } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printLines, printResult, withJson } from '../output.ts';
import { countOf, listOf, pairs, table } from '../table.ts';

type RevokeOptions = GatewayOptions &
  OutputOptions & {
    readonly serial?: string;
    readonly key?: string;
    readonly reason?: string;
    readonly unknown?: boolean;
  };
type ListOptions = GatewayOptions & OutputOptions & { readonly site?: string };

export function registerRevoke(program: Command, io: Io): void {
  const command = program
    .command('revoke')
    .summary('cut a site, a certificate or a key off')
    .description(
      'Revokes a site, a certificate or a key, closes its tunnels, and prints the receipt. It takes effect at once. ' +
        'Exit code 4: it is stored, and not in effect yet at the machines that the receipt names.'
    )
    .argument('[site]', 'the site')
    .option('--serial <hex>', 'the serial number of a certificate instead')
    .option('--key <hash>', 'a key instead: the SHA-256 of its SubjectPublicKeyInfo, in base64url')
    .option(
      '--reason <reason>',
      'why: unspecified (the default), keyCompromise, affiliationChanged, superseded, cessationOfOperation, privilegeWithdrawn'
    )
    .option(
      '--unknown',
      'revoke the name also if there is no such site, so that none can enrol with it'
    );
  withJson(withGateway(command)).action(
    async (site: string | undefined, options: RevokeOptions) => {
      const { serial, key: spki, reason } = options;
      const scopes = [{ site }, { serial }, { spki }].filter(
        (scope) => Object.values(scope)[0] !== undefined
      );
      if (scopes.length !== 1) throw usageError('give one of a site, --serial and --key');
      const body = { ...scopes[0], ...(reason !== undefined && { reason }) };
      const cloud = connectCloud(io, options);
      if (site !== undefined && options.unknown !== true) await assertSite(cloud, site);
      const { result } = await cloud.call('revoke', { body: body as RevocationBody });
      printResult(io, options, result, () => receiptLines(result));
      if ((result.unconfirmed ?? []).length > 0) throw endedWith(ExitCode.NotReady);
    }
  );
}

/**
 * The gateway revokes any name. A mistyped one would leave the site that is meant connected.
 *
 * @throws {CommandError} if there is no such site.
 */
async function assertSite(cloud: Connection<CloudOperations>, site: string): Promise<void> {
  if ((await cloud.find('getSite', { params: { site } })) !== undefined) return;
  const message = `there is no site "${site}", and nothing is revoked: "site list" names the sites, and --unknown revokes the name all the same`;
  throw new CommandError(ExitCode.Refused, message);
}

export function registerReinstate(program: Command, io: Io): void {
  const command = program
    .command('reinstate')
    .summary('let a revoked site come back')
    .description('Lets a revoked site enrol again. Its edge gateway needs a new token.')
    .argument('<site>', 'the site');
  withGateway(command).action(async (site: string, options: GatewayOptions) => {
    await connectCloud(io, options).call('reinstate', { params: { site } });
    printLines(io, [
      `"${site}" may enrol again: virtual-presence token create ${site}, and virtual-presence enrol at its edge`,
    ]);
  });
}

export function registerRevocation(program: Command, io: Io): void {
  const parent = program
    .command('revocation')
    .summary('what is revoked')
    .description('Reads what is revoked; "revoke" and "reinstate" change it.');
  const command = parent
    .command('list')
    .summary('list what is revoked')
    .description('Lists the sites, certificates and keys that are revoked.')
    .option('--site <site>', 'only this site and its certificates');
  withJson(withGateway(command)).action(async ({ site, ...options }: ListOptions) => {
    const revocations = await connectCloud(io, options).list('listRevocations', { site });
    printResult(io, options, { revocations }, () => {
      const rows = revocations.map(({ scope, reason, revokedAt, site: of = '-' }) => [
        scopeOf(scope),
        of,
        reason,
        revokedAt,
      ]);
      return table(['revoked', 'site', 'reason', 'since'], rows, 'nothing is revoked');
    });
  });
}

function receiptLines(receipt: ReceiptAnswer): readonly string[] {
  const { scope, sites, serials, unexpired, tokensVoided, tunnelsClosed, pathsRemoved } = receipt;
  const lines = [
    `${scopeOf(scope)} is revoked`,
    ...pairs([
      ['sites', listOf(sites)],
      ['certificates', listOf(serials)],
      ['ended', `${countOf(tunnelsClosed, 'tunnel')}, ${countOf(pathsRemoved, 'path')}`],
      ['tokens voided', String(tokensVoided)],
      ['packets stopped', `${receipt.elapsedMs.toFixed(1)} ms after the request`],
      ['in effect at', receipt.confirmed && listOf(receipt.confirmed)],
    ]),
    ...(receipt.unconfirmed ?? []).map(unconfirmedLine),
  ];
  if (unexpired.length === 0) return lines;
  return [
    ...lines,
    `certificates of ${listOf(unexpired)} are still valid: only revoking the site ends them`,
  ];
}

function unconfirmedLine({ machine, fencedBy }: UnconfirmedAnswer): string {
  const rest =
    fencedBy === undefined
      ? `stop its gateway, and then run "machine remove ${machine}"`
      : `it ends its tunnels by ${fencedBy}`;
  return `the machine "${machine}" has not confirmed it: ${rest}`;
}

function scopeOf({ site, serial, spki }: ScopeAnswer): string {
  if (site !== undefined) return `the site "${site}"`;
  return serial === undefined ? `the key ${spki}` : `the certificate ${serial}`;
}
