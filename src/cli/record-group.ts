/**
 * The group of commands for one kind of record: `list`, `show`, `set` and `delete`.
 * @module
 */
import type { Command } from 'commander';
import type { Schema } from '../base/schema.ts';
import { connectCloud, type GatewayOptions, withGateway } from './connection.ts';
import type { Io } from './io.ts';
import { type OutputOptions, printLines, printResult, withJson } from './output.ts';
import {
  changeRecord,
  editedRecord,
  type Fields,
  type RecordKey,
  type RecordOptions,
  recordLines,
  withRecordOptions,
} from './records.ts';
import { table } from './table.ts';

/** One kind of record, such as sites. */
export interface RecordGroup {
  readonly noun: 'site' | 'service';
  readonly plural: 'sites' | 'services';
  /** One sentence that says what such a record is. */
  readonly meaning: string;
  readonly operations: {
    readonly list: 'listSites' | 'listServices';
    readonly get: 'getSite' | 'getService';
    readonly put: 'putSite' | 'putService';
    readonly delete: 'deleteSite' | 'deleteService';
  };
  readonly body: Schema<object>;
  readonly keys: readonly RecordKey[];
  /** The keys that a new record needs, as options. */
  readonly required: string;
  readonly titles: readonly string[];
  readonly cells: (record: Fields) => readonly string[];
}

type ListOptions = GatewayOptions & OutputOptions & { readonly site?: string | undefined };
type SetOptions = GatewayOptions & RecordOptions & Fields;

export function registerGroup(program: Command, io: Io, group: RecordGroup): void {
  const { noun, plural, meaning } = group;
  const parent = program
    .command(noun)
    .summary(`the ${plural} of the desired state`)
    .description(`Reads and changes the ${plural} of a cloud gateway. ${meaning}`);
  addList(parent, io, group);
  addShow(parent, io, group);
  addSet(parent, io, group);
  const command = parent
    .command('delete')
    .summary(`delete a ${noun}`)
    .description(`Deletes a ${noun} that no other record needs.`)
    .argument('<name>', `the name of the ${noun}`);
  withGateway(command).action(async (name: string, options: GatewayOptions) => {
    await connectCloud(io, options).call(group.operations.delete, paramsOf(group, name));
    printLines(io, [`the ${noun} "${name}" is deleted`]);
  });
}

function addList(parent: Command, io: Io, group: RecordGroup): void {
  const { noun, plural, operations, titles, cells } = group;
  const command = parent
    .command('list')
    .summary(`list the ${plural}`)
    .description(
      `Lists the ${plural}, with who keeps each: the configuration file or this command.`
    );
  if (noun === 'service') command.option('--site <site>', 'only the services of this site');
  withJson(withGateway(command)).action(async ({ site, ...options }: ListOptions) => {
    const records = await connectCloud(io, options).list(operations.list, { site });
    printResult(io, options, { [plural]: records }, () => {
      const rows = records.map((record) => [...cells({ ...record }), record.owner]);
      return table([...titles, 'kept by'], rows, `there are no ${plural}`);
    });
  });
}

function addShow(parent: Command, io: Io, group: RecordGroup): void {
  const { noun, operations } = group;
  const command = parent
    .command('show')
    .summary(`show one ${noun}`)
    .description(
      `Shows one ${noun} with all its keys, as the option --file of "${noun} set" takes it.`
    )
    .argument('<name>', `the name of the ${noun}`);
  withJson(withGateway(command)).action(async (name: string, options: ListOptions) => {
    const { result } = await connectCloud(io, options).call(operations.get, paramsOf(group, name));
    printResult(io, options, result, () => recordLines({ ...result }));
  });
}

function addSet(parent: Command, io: Io, group: RecordGroup): void {
  const { noun, operations, keys, body: schema, required } = group;
  const command = parent
    .command('set')
    .summary(`add or change a ${noun}`)
    .description(
      `Changes the named keys of a ${noun}; the others stay. A new one needs ${required}. ` +
        'A list replaces the one before.'
    )
    .argument('<name>', `the name of the ${noun}`);
  withGateway(withRecordOptions(command, keys)).action(
    async (name: string, options: SetOptions) => {
      const cloud = connectCloud(io, options);
      const params = paramsOf(group, name);
      const access = {
        what: `the ${noun} "${name}"`,
        read: () => cloud.find(operations.get, params as never),
        write: (body: Fields, expect: string) =>
          cloud.call(operations.put, { ...params, body, expect } as never),
      };
      await changeRecord(io, access, (before) => editedRecord(io, before, options, keys, schema));
    }
  );
}

/** The parameter in the path of an operation is the noun. */
function paramsOf({ noun }: RecordGroup, name: string): { params: never } {
  return { params: { [noun]: name } as never };
}
