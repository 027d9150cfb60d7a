/**
 * `cloud-gateway CONFIG.yaml`: runs until SIGTERM; SIGHUP, and the admin interface, read the file's desired state anew.
 * `cloud.yaml` beside this file shows every key.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { CloudGateway } from 'virtual-presence';
import { ConfigFile } from '../program/config-file.ts';
import { readPassphrase } from '../program/files.ts';
import { logger, readyLine, run } from '../program/run.ts';

/** The keys that the file has, and the library has not, or has in another unit. The library checks all others. */
const CloudFile = v.looseObject({
  stateDirectory: v.string(),
  adminSocket: v.string(),
  device: v.looseObject({ path: v.optional(v.string()) }),
  /** The library calls them workers. */
  processes: v.optional(v.unknown()),
  trust: v.optional(
    v.looseObject({
      certificateLifetimeSeconds: v.optional(seconds(5)),
      passphraseFile: v.optional(v.string()),
    }),
    {}
  ),
  leases: v.optional(
    v.looseObject({
      idleSeconds: v.optional(seconds(60)),
      pressedIdleSeconds: v.optional(seconds(60)),
    }),
    {}
  ),
  desired: v.looseObject({}),
});

await run('cloud-gateway', async (path) => {
  const file = new ConfigFile(path);
  const config = file.read(CloudFile);

  const reload = async () => {
    const again = new ConfigFile(path);
    const next = again.read(CloudFile);
    await again.locate(() => gateway.apply(next.desired as never), { within: 'desired' });
    const needRestart = Object.keys(config).filter(
      (key) => key !== 'desired' && !isDeepStrictEqual(next[key], config[key])
    );
    if (needRestart.length > 0) {
      logger.warn({}, `changed, and needs a restart: ${needRestart.join(', ')}`);
    }
    return { needRestart };
  };

  const { processes, trust, leases, ...rest } = config;
  const { certificateLifetimeSeconds, passphraseFile, ...otherTrust } = trust;
  const { idleSeconds, pressedIdleSeconds, ...otherLeases } = leases;
  const passphrase =
    passphraseFile && readPassphrase('trust.passphraseFile', file.resolve(passphraseFile));
  const options = {
    ...rest,
    stateDirectory: file.resolve(config.stateDirectory),
    adminSocket: file.resolve(config.adminSocket),
    device: file.withPath(config.device),
    workers: processes,
    trust: { ...otherTrust, passphrase, certificateLifetimeMs: inMs(certificateLifetimeSeconds) },
    leases: {
      ...otherLeases,
      idleMs: inMs(idleSeconds),
      pressedIdleMs: inMs(pressedIdleSeconds),
    },
    reload,
    logger,
  };
  const gateway = await file.locate(() => CloudGateway.start(options as never), {
    renamed: { workers: 'processes', 'leases.pressedIdleMs': 'leases.pressedIdleSeconds' },
  });
  logger.info({}, readyLine('cloud gateway', gateway.addresses));
  return { reload, close: () => gateway.close() };
});

function seconds(least: number) {
  const most = 10 * 365 * 86_400;
  const isOne = (value: number) => Number.isInteger(value) && value >= least && value <= most;
  return v.pipe(
    v.number(),
    v.check(isOne, ({ input }) => `expected a whole number from ${least} to ${most}, got ${input}`)
  );
}

function inMs(seconds: number | undefined): number | undefined {
  return seconds === undefined ? undefined : seconds * 1000;
}
