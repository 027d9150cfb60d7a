/**
 * `edge FILE`: runs an edge gateway.
 * @module
 */
import type { Command } from 'commander';
import { resolveEdgeOptions } from '../../gateway/edge-options.ts';
import { EdgeGateway } from '../../gateway/index.ts';
import type { Logger } from '../../observe/index.ts';
import { ConfigFile } from '../config-file.ts';
import { type EdgeKeys, edgeOptions, readEdgeKeys } from '../edge-file.ts';
import type { Io } from '../io.ts';
import { type LogOptions, openLogger, withLogOptions } from '../log.ts';
import type { Notify } from '../notify.ts';
import { changedKeys, type FileState, logNeedRestart } from '../restart-keys.ts';
import { type Running, readyLine, runGateway } from '../run-gateway.ts';
import { startSidecars } from '../sidecars.ts';

export function registerEdge(program: Command, io: Io): void {
  const command = program
    .command('edge')
    .summary('run an edge gateway')
    .description(
      'Runs an edge gateway until SIGTERM or SIGINT. SIGHUP says which changes of its file need a restart.'
    )
    .argument('<file>', 'its configuration, in YAML or JSON');
  withLogOptions(command).action(async (path: string, options: LogOptions) => {
    const logger = openLogger(io, options);
    await runGateway(io, logger, (notify) => start(path, logger, notify));
  });
}

async function start(path: string, logger: Logger, notify: Notify): Promise<Running> {
  const file = new ConfigFile(path);
  const keys = await readEdgeKeys(file);
  const before = await stateOf(file, keys, logger);
  const reload = async (): Promise<void> => {
    const again = new ConfigFile(path);
    const after = await stateOf(again, await readEdgeKeys(again), logger);
    logNeedRestart(logger, changedKeys(before, after));
  };
  const gateway = await file.locate(() => EdgeGateway.start(edgeOptions(file, keys, { logger })));
  const sidecars = await startSidecars(file, keys.sockets, gateway, logger);

  const status = (): string => `${gateway.site ?? 'not enrolled'}: ${gateway.state}`;

  // An edge that is rejected before it was ever online has a wrong configuration, and the program ends. Later the
  // program goes on, because a new token is enough.
  const failed = new Promise<never>((_, reject) => {
    let wasOnline = false;
    let isLogged = false;
    const follow = (): void => {
      const { state, failure, site } = gateway;
      void notify.status(status());
      wasOnline ||= state === 'online';
      if (site !== undefined && !isLogged) {
        isLogged = true;
        const listening = { ...gateway.addresses, ...sidecars };
        const message = readyLine(`edge gateway of ${site}`, listening);
        logger.info({ event: 'gateway.ready', site, listening }, message);
      }
      if (state !== 'rejected' || wasOnline) return;
      const { error, remedy } = failure!;
      if (remedy === 'token') {
        error.message += `; put a new token into ${file.resolve(keys.tokenFile)}`;
      }
      reject(error);
    };
    gateway.on('state', follow);
    follow();
  });
  failed.catch(() => {});
  return { failed, reload, status, close: () => gateway.close() };
}

/** @throws {ConfigError} with file, line and key, if an option is wrong. */
async function stateOf(file: ConfigFile, keys: EdgeKeys, logger: Logger): Promise<FileState> {
  const resolved = await file.locate(() => resolveEdgeOptions(edgeOptions(file, keys, { logger })));
  const { tokenFile, sockets } = keys;
  const options = {
    ...resolved,
    snapshotValidSeconds: resolved.snapshotValidMs,
    tokenFile,
    sockets,
  };
  return { keys, options };
}
