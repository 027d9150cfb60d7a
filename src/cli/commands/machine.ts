/**
 * `machine list|drain|resume|remove`: the machines of a cloud, see `cluster` of its configuration file.
 * @module
 */
import type { Command } from 'commander';
import type { DrainAnswer, MachineAnswer } from '../../admin/index.ts';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import { ExitCode, endedWith } from '../exit.ts';
import type { Io } from '../io.ts';
import { type OutputOptions, printLines, printResult, withJson } from '../output.ts';
import { machineText, placeOf } from '../status-text.ts';
import { countOf, listOf, table } from '../table.ts';

export function registerMachine(program: Command, io: Io): void {
  const parent = program
    .command('machine')
    .summary('the machines of a cloud')
    .description(
      'Reads and changes the machines of a cloud, each of which has a gateway with the key "cluster".'
    );

  const list = parent
    .command('list')
    .summary('list the machines')
    .description('Lists the machines of the cloud, as the gateway that is asked sees them.');
  withJson(withGateway(list)).action(async (options: GatewayOptions & OutputOptions) => {
    const { result } = await connectCloud(io, options).call('listMachines', {});
    printResult(io, options, result, () => [
      ...table(TITLES, result.machines.map(cellsOf), 'there are no machines'),
      '',
      `this machine: ${machineText(result.machine)}`,
    ]);
  });

  const drainCommand = parent
    .command('drain')
    .summary('hand all sites of a machine over to the others')
    .description(
      'Hands all sites of the machine whose gateway is asked over to the others, before maintenance. It takes no more until ' +
        '"machine resume". Exit code 4: some sites are still there.'
    )
    .argument('<machine>', 'the machine');
  withJson(withGateway(drainCommand)).action(
    async (machine: string, options: GatewayOptions & OutputOptions) => {
      const call = { params: { machine } };
      const { result } = await connectCloud(io, options).call('drainMachine', call);
      printResult(io, options, result, () => drainLines(machine, result));
      if (result.kept.length > 0) throw endedWith(ExitCode.NotReady);
    }
  );

  const resume = parent
    .command('resume')
    .summary('let a machine take sites again')
    .description('Lets the machine whose gateway is asked take sites again.')
    .argument('<machine>', 'the machine');
  withGateway(resume).action(async (machine: string, options: GatewayOptions) => {
    await connectCloud(io, options).call('resumeMachine', { params: { machine } });
    printLines(io, [`the machine "${machine}" takes sites again`]);
  });

  const remove = parent
    .command('remove')
    .summary('remove a machine that is off')
    .description(
      'Removes a machine from the cloud. With this you give your word that it is off: the others wait for it no more, ' +
        'and use its addresses. A machine that is alive is refused.'
    )
    .argument('<machine>', 'the machine');
  withGateway(remove).action(async (machine: string, options: GatewayOptions) => {
    await connectCloud(io, options).call('removeMachine', { params: { machine } });
    printLines(io, [`the machine "${machine}" is removed`]);
  });
}

const TITLES = ['machine', 'state', 'sites', 'allocates', 'edges connect to'];

function cellsOf(machine: MachineAnswer): string[] {
  const { name, sites, isController, endpoints } = machine;
  return [
    name,
    stateOf(machine),
    String(sites),
    isController ? 'yes' : '-',
    listOf(endpoints.map(placeOf)),
  ];
}

function stateOf({ isLive, isDraining, stopsAt }: MachineAnswer): string {
  if (isLive) return isDraining ? 'draining' : 'live';
  return stopsAt === undefined ? 'gone' : `gone, its tunnels end by ${stopsAt}`;
}

function drainLines(machine: string, { handedOver, kept }: DrainAnswer): readonly string[] {
  const done = `the machine "${machine}" takes no sites any more; ${countOf(handedOver, 'site')} handed over`;
  if (kept.length === 0) return [done];
  return [done, `still there: ${listOf(kept)}; no other machine takes them, or the store failed`];
}
