/**
 * `expose` and `unexpose`: makes a service visible to a site, or to all sites with certain labels, and ends that.
 * @module
 */
import type { Command } from 'commander';
import { CLOUD_OPERATIONS } from '../../admin/index.ts';
import { IpPrefix } from '../../base/prefix.ts';
import { parseLabels, parseList, parseSeconds } from '../arguments.ts';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import { usageError } from '../exit.ts';
import type { Io } from '../io.ts';
import { printLines } from '../output.ts';
import {
  changeRecord,
  editedRecord,
  type Fields,
  type RecordAccess,
  type RecordKey,
  type RecordOptions,
  withRecordOptions,
} from '../records.ts';
import { waitForExposure } from '../wait.ts';

type ExposeOptions = GatewayOptions &
  RecordOptions & {
    readonly addClients?: readonly string[];
    readonly removeClients?: readonly string[];
    readonly selector?: Readonly<Record<string, string>>;
    readonly name?: string;
    readonly wait?: boolean;
    readonly timeout?: number;
  };

const KEYS: readonly RecordKey[] = [
  {
    option: '--clients <prefixes>',
    description: 'the clients that may use it, such as 10.0.0.0/28; default: all of the site',
    parse: parseList,
  },
  { option: '--dns-name <name>', description: "its name in the site's zone; default: SERVICE" },
  {
    option: '--address <address>',
    description: "its address at the site, of the site's pools; default: any free one",
  },
  {
    option: '--aliases <names>',
    description: "further names in the site's zone, at most 16",
    parse: parseList,
  },
  {
    option: '--wildcard',
    description: 'answer names below its name as its name is answered',
    parse: () => true,
  },
  {
    option: '--not-before <time>',
    description: 'from when on it holds, such as 2026-12-01T08:00:00Z; none: now, the default',
    parse: parseBound,
  },
  {
    option: '--not-after <time>',
    description: 'until when it holds; none: without end, the default',
    parse: parseBound,
  },
];

export function registerExpose(program: Command, io: Io): void {
  const command = program
    .command('expose')
    .summary('make a service visible to a site')
    .description(
      'Exposes a service to a site, or with --selector and --name to all sites with certain labels. ' +
        'If it is exposed there already, the named keys are changed and the others stay. ' +
        'The keys https and svcb are given by --file.'
    )
    .argument('<service>', 'the name of the service')
    .argument('[site]', 'the site of the clients')
    .option('--selector <labels>', 'all sites with these labels, such as tier=edge', parseLabels)
    .option('--name <name>', 'the name of the exposure with a selector')
    .option('--add-clients <prefixes>', 'clients to permit besides those before', parseList)
    .option('--remove-clients <prefixes>', 'clients to permit no more', parseList)
    .option('--wait', 'wait until it has an address, and the edge knows it if it is connected')
    .option('--timeout <duration>', 'how long --wait waits at most; default 1m', parseSeconds);
  withGateway(withRecordOptions(command, KEYS)).action(
    async (service: string, site: string | undefined, options: ExposeOptions) => {
      const { name, selector, wait } = options;
      checkPlace(site, name);
      if (site === undefined && wait) throw usageError('--wait needs a site');
      if (site !== undefined && selector !== undefined) throw usageError('--selector needs --name');
      const access = accessTo(io, options, service, site);
      const schema = CLOUD_OPERATIONS[site === undefined ? 'putSelector' : 'putExposure'].body;
      await changeRecord(io, access, async (before) => {
        const record = await editedRecord(io, before, { ...options }, KEYS, schema);
        const withClients = changedClients(record, before, options);
        if (site !== undefined) return withClients;
        return { ...withClients, service, ...(selector && { siteSelector: selector }) };
      });
      if (wait && site !== undefined) {
        await waitForExposure(io, connectCloud(io, options), { service, site }, options.timeout);
      }
    }
  );
}

export function registerUnexpose(program: Command, io: Io): void {
  const command = program
    .command('unexpose')
    .summary('end an exposure')
    .description('Ends the exposure of a service to a site, or with --name one with a selector.')
    .argument('[service]', 'the name of the service')
    .argument('[site]', 'the site of the clients')
    .option('--name <name>', 'the name of the exposure with a selector');
  withGateway(command).action(
    async (
      service: string | undefined,
      site: string | undefined,
      options: GatewayOptions & { readonly name?: string }
    ) => {
      const { name } = options;
      checkPlace(service, name);
      if (service !== undefined && site === undefined) throw usageError('the site is missing');
      const cloud = connectCloud(io, options);
      if (service === undefined || site === undefined) {
        await cloud.call('deleteSelector', { params: { selector: name! } });
        return printLines(io, [`the exposure "${name}" is ended`]);
      }
      await cloud.call('deleteExposure', { params: { site, service } });
      printLines(io, [`"${service}" is not exposed to "${site}" any more`]);
    }
  );
}

/** Returns a time, or false for the word that takes it out. */
function parseBound(text: string): string | false {
  return text === 'none' ? false : text;
}

/** @throws {CommandError} unless one of both says which exposure is meant. */
function checkPlace(place: string | undefined, name: string | undefined): void {
  if (place === undefined && name === undefined) {
    throw usageError('which exposure? Give a service and a site, or --name');
  }
  if (place !== undefined && name !== undefined) {
    throw usageError('a site and --name exclude each other');
  }
}

function accessTo(
  io: Io,
  options: ExposeOptions,
  service: string,
  site: string | undefined
): RecordAccess {
  const cloud = connectCloud(io, options);
  if (site !== undefined) {
    const params = { site, service };
    return {
      what: `the exposure of "${service}" to "${site}"`,
      read: () => cloud.find('getExposure', { params }),
      write: (body, expect) => cloud.call('putExposure', { params, body: body as never, expect }),
    };
  }
  const params = { selector: options.name! };
  return {
    what: `the exposure "${options.name}"`,
    read: () => cloud.find('getSelector', { params }),
    write: (body, expect) => cloud.call('putSelector', { params, body: body as never, expect }),
  };
}

/**
 * Returns the record with the clients that `--add-clients` and `--remove-clients` leave.
 *
 * @throws {CommandError} if they cannot be combined with what is there.
 */
function changedClients(
  record: Fields,
  before: Fields | undefined,
  { addClients = [], removeClients = [] }: ExposeOptions
): Fields {
  if (addClients.length === 0 && removeClients.length === 0) return record;
  const added = addClients.map(keyed);
  const removed = removeClients.map(keyed);
  const given = record.clients as readonly string[] | undefined;
  const isOpen = given === undefined && before !== undefined;
  // Without the key all clients are permitted: a list would take the right from all others.
  if (isOpen && removed.length === 0) return record;
  if (given === undefined && removed.length > 0) {
    throw usageError(
      '--remove-clients: all clients are permitted; name those that shall be by --clients'
    );
  }
  const clients = new Map([...(given ?? []).map(keyed), ...added]);
  for (const [key, text] of removed) {
    if (clients.delete(key)) continue;
    const all = [...clients.values()].join(', ');
    throw usageError(`--remove-clients: ${text} is not in the list ${all}`);
  }
  if (clients.size > 0) return { ...record, clients: [...clients.values()] };
  throw usageError('--remove-clients: no client would be left; end the exposure by "unexpose"');
}

/** Returns a prefix by the text that all ways to write it have in common. */
function keyed(text: string): readonly [key: string, text: string] {
  try {
    const { base, length } = IpPrefix.parse(text);
    return [`${base}/${length}`, text];
  } catch (error) {
    throw usageError((error as Error).message);
  }
}
