/**
 * `site list|show|set|delete`: the sites of the desired state.
 * @module
 */
import type { Command } from 'commander';
import { CLOUD_OPERATIONS } from '../../admin/index.ts';
import { parseCount, parseLabels, parseList } from '../arguments.ts';
import type { Io } from '../io.ts';
import { registerGroup } from '../record-group.ts';
import type { RecordKey } from '../records.ts';
import { listOf } from '../table.ts';

export function registerSite(program: Command, io: Io): void {
  registerGroup(program, io, {
    noun: 'site',
    plural: 'sites',
    meaning: 'A site is a network with an edge gateway; the cloud is one too.',
    operations: { list: 'listSites', get: 'getSite', put: 'putSite', delete: 'deleteSite' },
    body: CLOUD_OPERATIONS.putSite.body,
    keys: KEYS,
    required: '--sources, --pools and --zone',
    titles: ['site', 'sources', 'pools', 'zone'],
    cells: ({ name, sources, pools, zone }) => [
      String(name),
      listOf(sources as string[]),
      listOf(pools as string[]),
      String(zone),
    ],
  });
}

const KEYS: readonly RecordKey[] = [
  {
    option: '--sources <prefixes>',
    description: 'the real hosts that may take part, such as 10.0.0.0/24,10.0.1.7',
    parse: parseList,
    add: {
      option: '--add-sources <prefixes>',
      description: 'hosts that may take part besides those before',
    },
  },
  {
    option: '--pools <prefixes>',
    description: "the prefixes of the site's presences, such as 10.0.0.128/25",
    parse: parseList,
    add: { option: '--add-pools <prefixes>', description: 'pools besides those before' },
  },
  {
    option: '--reserved <addresses>',
    description: 'prefixes in the pools that no presence gets',
    parse: parseList,
  },
  { option: '--zone <domain>', description: "the domain of the site's names" },
  {
    option: '--max-clients <number>',
    description: "how many of the site's hosts may be clients at each other site; default 1024",
    parse: parseCount,
  },
  {
    option: '--max-names <number>',
    description: 'how many names services may have at the site; default 4096',
    parse: parseCount,
  },
  {
    option: '--service-reserve <number>',
    description: 'how many addresses stay free for services; default: an eighth of the pools',
    parse: parseCount,
  },
  {
    option: '--client-share <number>',
    description: 'how many addresses each other site is sure of for its clients',
    parse: parseCount,
  },
  {
    option: '--mtu <bytes>',
    description: 'the largest packet that goes into the site, 576 to 65535; default: any',
    parse: parseCount,
  },
  {
    option: '--reject <how>',
    description:
      'the answer to a packet that is not permitted: drop (the default), unreachable, reset',
  },
  {
    option: '--labels <labels>',
    description: 'what selectors take the site by, such as tier=edge,region=north',
    parse: parseLabels,
  },
];
