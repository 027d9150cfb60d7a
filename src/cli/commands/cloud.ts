/**
 * `cloud FILE`: runs a cloud gateway.
 * @module
 */
import type { Command } from 'commander';
import { CloudGateway, resolveCloudOptions } from '../../gateway/index.ts';
import type { Logger } from '../../observe/index.ts';
import {
  CLOUD_RENAMED,
  type CloudHostOptions,
  type CloudKeys,
  cloudOptions,
  readCloudKeys,
  readCloudPassphrase,
} from '../cloud-file.ts';
import { openClusterStore } from '../cluster-file.ts';
import { RELOADED_KEYS } from '../common-file.ts';
import { ConfigFile } from '../config-file.ts';
import type { Io } from '../io.ts';
import { type LogOptions, openLogger, withLogOptions } from '../log.ts';
import {
  callOf,
  FIRST_POOL,
  firstEdgeCommands,
  firstSiteCommands,
  routeSentence,
} from '../next-steps.ts';
import type { Notify } from '../notify.ts';
import { changedKeys, type FileState, logNeedRestart } from '../restart-keys.ts';
import { type Running, readyLine, runGateway } from '../run-gateway.ts';
import { startSidecars } from '../sidecars.ts';

export function registerCloud(program: Command, io: Io): void {
  const command = program
    .command('cloud')
    .summary('run a cloud gateway')
    .description(
      'Runs a cloud gateway until SIGTERM or SIGINT. SIGHUP reads the desired state of its file again.'
    )
    .argument('<file>', 'its configuration, in YAML or JSON');
  withLogOptions(command).action(async (path: string, options: LogOptions) => {
    const logger = openLogger(io, options);
    await runGateway(io, logger, (notify) => start(path, logger, notify, callOf(io)));
  });
}

/** @param call how the user calls this program */
async function start(path: string, logger: Logger, notify: Notify, call: string): Promise<Running> {
  const file = new ConfigFile(path);
  const keys = await readCloudKeys(file);
  const passphrase = await readCloudPassphrase(file, keys);
  const reload = async (): Promise<{ readonly needRestart: readonly string[] }> => {
    const again = new ConfigFile(path);
    const next = await readCloudKeys(again);
    const after = await stateOf(again, next, host);
    await again.locate(() => gateway.apply(next.desired as never), { within: 'desired' });
    const needRestart = changedKeys(before, after).filter(
      (key) => !RELOADED_KEYS.cloud.includes(key)
    );
    logNeedRestart(logger, needRestart);
    return { needRestart };
  };
  const { cluster } = keys;
  const clusterStore =
    cluster && (await file.locate(() => openClusterStore(file, cluster, keys.trustDomain, logger)));
  const host: CloudHostOptions = { passphrase, clusterStore, reload, logger };
  const before = await stateOf(file, keys, host);
  const gateway = await file
    .locate(() => CloudGateway.start(cloudOptions(file, keys, host)), { renamed: CLOUD_RENAMED })
    .catch(async (error: Error) => {
      await clusterStore?.close();
      throw error;
    });
  const sidecars = await startSidecars(file, keys.sockets, gateway, logger);
  const listening = { ...gateway.addresses, ...sidecars };
  logger.info({ event: 'cloud_ready', listening }, readyLine('cloud gateway', listening));
  if (gateway.registry.page({ kind: 'site', limit: 2 }).length < 2) {
    const say = (message: string): void => logger.info({ event: 'cloud_without_sites' }, message);
    say('there is no site yet; make one, its token, and a service for it:');
    for (const command of firstSiteCommands(call, file.resolve(keys.adminSocket)))
      say(`  ${command}`);
    say('then, on the machine of the site, with the file token:');
    for (const command of firstEdgeCommands(call)) say(`  ${command}`);
    say(`With a TUN there: ${routeSentence(FIRST_POOL, 'ADDRESS_OF_THE_EDGE')}`);
  }
  const status = (): string => gateway.state;
  gateway.on('state', () => void notify.status(status()));
  const close = async (): Promise<void> => {
    await gateway.close();
    await clusterStore?.close();
  };
  return { reload, status, close };
}

/** @throws {ConfigError} with file, line and key, if an option is wrong. */
async function stateOf(
  file: ConfigFile,
  keys: CloudKeys,
  host: CloudHostOptions
): Promise<FileState> {
  const options = await file.locate(() => resolveCloudOptions(cloudOptions(file, keys, host)), {
    renamed: CLOUD_RENAMED,
  });
  return { keys, options: { ...options, sockets: keys.sockets } };
}
