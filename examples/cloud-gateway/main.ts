/**
 * `cloud-gateway CONFIG.yaml`: runs until SIGTERM. SIGHUP and the admin interface read the file's desired state again.
 * `cloud.yaml` in this folder shows every key.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import * as v from 'valibot';
import { CloudGateway } from 'virtual-presence';
import { resolveCloudOptions } from 'virtual-presence/gateway';
import { ConfigFile, notInFiles } from '../program/config-file.ts';
import { readPassphrase } from '../program/files.ts';
import { logger, readyLine, run } from '../program/run.ts';
import { inMs, seconds } from '../program/seconds.ts';
import { checkSidecars, SidecarsSchema, startSidecars } from '../program/sidecars.ts';

/** The keys that differ from the library's options in name or unit. The library checks all other keys. */
const CloudFile = v.looseObject({
  stateDirectory: v.string(),
  adminSocket: v.string(),
  device: v.looseObject({ path: v.optional(v.string()) }),
  /** The library's option is `workers`. */
  processes: v.optional(v.unknown()),
  trust: v.optional(
    v.looseObject({
      certificateLifetimeSeconds: v.optional(seconds(5)),
      passphraseFile: v.optional(v.string()),
      certificateLifetimeMs: notInFiles,
      passphrase: notInFiles,
    }),
    {}
  ),
  leases: v.optional(
    v.looseObject({
      idleSeconds: v.optional(seconds(60)),
      pressedIdleSeconds: v.optional(seconds(60)),
      overlapSeconds: v.optional(seconds(0)),
      overlapMs: notInFiles,
      idleMs: notInFiles,
      pressedIdleMs: notInFiles,
    }),
    {}
  ),
  sockets: v.optional(SidecarsSchema),
  desired: v.looseObject({}),
  workers: notInFiles,
  logger: notInFiles,
  reload: notInFiles,
});
const RENAMED = {
  workers: 'processes',
  'leases.pressedIdleMs': 'leases.pressedIdleSeconds',
  'leases.overlapMs': 'leases.overlapSeconds',
};

await run('cloud-gateway', async (path) => {
  const file = new ConfigFile(path);
  const config = file.read(CloudFile);
  const passphrase = await file.locate(() => {
    const { passphraseFile } = config.trust;
    return passphraseFile && readPassphrase('trust.passphraseFile', file.resolve(passphraseFile));
  });

  await file.locate(() => checkSidecars(config.device, config.sockets));

  const optionsOf = ({ processes, trust, leases, sockets: _, ...rest }: typeof config): never => {
    const { certificateLifetimeSeconds, passphraseFile: __, ...otherTrust } = trust;
    const { idleSeconds, pressedIdleSeconds, overlapSeconds, ...otherLeases } = leases;
    const options = {
      ...rest,
      stateDirectory: file.resolve(rest.stateDirectory),
      adminSocket: file.resolve(rest.adminSocket),
      device: file.withPath(rest.device),
      workers: processes,
      trust: { ...otherTrust, passphrase, certificateLifetimeMs: inMs(certificateLifetimeSeconds) },
      leases: {
        ...otherLeases,
        idleMs: inMs(idleSeconds),
        pressedIdleMs: inMs(pressedIdleSeconds),
        overlapMs: inMs(overlapSeconds),
      },
      reload,
      logger,
    };
    // The library checks the options.
    return options as never;
  };

  const reload = async () => {
    const again = new ConfigFile(path);
    const next = again.read(CloudFile);
    await again.locate(() => checkSidecars(next.device, next.sockets));
    const resolved = await again.locate(() => resolveCloudOptions(optionsOf(next)), {
      renamed: RENAMED,
    });
    await again.locate(() => gateway.apply(next.desired as never), { within: 'desired' });
    const inForce: Record<string, unknown> = {
      ...resolveCloudOptions(optionsOf(config)),
      sockets: config.sockets,
    };
    const wanted: Record<string, unknown> = { ...resolved, sockets: next.sockets };
    const needRestart = Object.keys({ ...config, ...next }).filter((key) => {
      // A key that is now given with its default value has not changed.
      const option = key === 'processes' ? 'workers' : key;
      const isSame = isDeepStrictEqual(next[key], config[key]);
      return key !== 'desired' && !isSame && !isDeepStrictEqual(wanted[option], inForce[option]);
    });
    if (needRestart.length > 0) {
      logger.warn({}, `changed, and needs a restart: ${needRestart.join(', ')}`);
    }
    return { needRestart };
  };

  const gateway = await file.locate(() => CloudGateway.start(optionsOf(config)), {
    renamed: RENAMED,
  });
  const sidecars = await startSidecars(file, config.sockets, gateway);
  logger.info({}, readyLine('cloud gateway', { ...gateway.addresses, ...sidecars }));
  return { reload, close: () => gateway.close() };
});
