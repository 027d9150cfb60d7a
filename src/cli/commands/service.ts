/**
 * `service list|show|set|delete`: the services of the desired state.
 * @module
 */
import type { Command } from 'commander';
import { CLOUD_OPERATIONS } from '../../admin/index.ts';
import { parseList } from '../arguments.ts';
import type { Io } from '../io.ts';
import { registerGroup } from '../record-group.ts';
import type { RecordKey } from '../records.ts';
import { listOf } from '../table.ts';

export function registerService(program: Command, io: Io): void {
  registerGroup(program, io, {
    noun: 'service',
    plural: 'services',
    meaning: 'A service is a name for ports of a real host at its site.',
    operations: {
      list: 'listServices',
      get: 'getService',
      put: 'putService',
      delete: 'deleteService',
    },
    body: CLOUD_OPERATIONS.putService.body,
    keys: KEYS,
    required: '--site, --address and --ports',
    titles: ['service', 'site', 'address', 'ports'],
    cells: ({ name, site, address, ports }) => [
      String(name),
      String(site),
      String(address),
      listOf(ports as string[]),
    ],
  });
}

const KEYS: readonly RecordKey[] = [
  { option: '--site <site>', description: 'the site of the host' },
  { option: '--address <address>', description: 'the real address of the host' },
  {
    option: '--ports <ports>',
    description: 'the ports, such as tcp/5672,udp/8000-8100,icmp,ip/47',
    parse: parseList,
    add: { option: '--add-ports <ports>', description: 'ports besides those before' },
  },
];
