/**
 * `release`, `move` and `reload`: changes of what runs that the desired state does not have.
 * @module
 */
import type { Command } from 'commander';
import { parseCount } from '../arguments.ts';
import { connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import { usageError } from '../exit.ts';
import type { Io } from '../io.ts';
import { printLines } from '../output.ts';
import { listOf } from '../table.ts';

type MoveOptions = GatewayOptions & { readonly machine?: string };

export function registerMaintenance(program: Command, io: Io): void {
  const release = program
    .command('release')
    .summary("release the addresses of a site's clients")
    .description(
      "Releases the addresses that a site's clients have at other sites. The addresses of its services stay. " +
        'A client gets another one with its next packet.'
    )
    .argument('<site>', 'the site of the clients');
  withGateway(release).action(async (site: string, options: GatewayOptions) => {
    const cloud = connectCloud(io, options);
    const { released } = (await cloud.call('releaseClients', { params: { site } })).result;
    const noun = released === 1 ? 'address' : 'addresses';
    printLines(io, [
      `${released} ${noun} of the clients of "${site}" ${released === 1 ? 'is' : 'are'} released`,
    ]);
  });

  const move = program
    .command('move')
    .summary('move a site to another worker or machine')
    .description(
      'Moves a site to another worker of the cloud gateway, or from its machine to another one. Its connections go on.'
    )
    .argument('<site>', 'the site')
    .argument('[worker]', 'the number of the worker, from 0', parseCount)
    .option(
      '--machine <name>',
      'the machine instead; ask the gateway of the one that holds the site'
    );
  withGateway(move).action(
    async (site: string, worker: number | undefined, options: MoveOptions) => {
      const { machine } = options;
      if ((worker === undefined) === (machine === undefined)) {
        throw usageError('give one of a worker and --machine');
      }
      const body = machine === undefined ? { site, worker: worker! } : { site, machine };
      await connectCloud(io, options).call('moveSite', { body });
      const place = machine === undefined ? `worker ${worker}` : `machine "${machine}"`;
      printLines(io, [`"${site}" is at the ${place}`]);
    }
  );

  const reload = program
    .command('reload')
    .summary('read the configuration again')
    .description(
      'Makes a cloud gateway read the desired state of its configuration file again, as SIGHUP does.'
    );
  withGateway(reload).action(async (options: GatewayOptions) => {
    const { needRestart } = (await connectCloud(io, options).call('reload', {})).result;
    const done = 'the desired state of the file is in force';
    const rest = `; these keys take effect after a restart: ${listOf(needRestart)}`;
    printLines(io, [needRestart.length === 0 ? done : `${done}${rest}`]);
  });
}
