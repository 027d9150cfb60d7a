/**
 * `edge-gateway CONFIG.yaml`: runs until SIGTERM. `edge.yaml` in this folder shows every key.
 * @module
 */
import * as v from 'valibot';
import { EdgeGateway } from 'virtual-presence';
import { proxyFromEnvironment } from 'virtual-presence/tunnel';
import { ConfigFile, notInFiles } from '../program/config-file.ts';
import { readText } from '../program/files.ts';
import { logger, readyLine, run } from '../program/run.ts';
import { inMs, seconds } from '../program/seconds.ts';
import { checkSidecars, SidecarsSchema, startSidecars } from '../program/sidecars.ts';

/** The keys that differ from the library's options in name. The library checks all other keys. */
const EdgeFile = v.looseObject({
  stateDirectory: v.string(),
  tokenFile: v.string(),
  proxy: v.optional(v.string()),
  snapshotValidSeconds: v.optional(seconds(60)),
  snapshotValidMs: notInFiles,
  device: v.looseObject({ path: v.optional(v.string()) }),
  sockets: v.optional(SidecarsSchema),
  token: notInFiles,
  logger: notInFiles,
});

await run('edge-gateway', async (path) => {
  const file = new ConfigFile(path);
  const { tokenFile, proxy, snapshotValidSeconds, sockets, ...rest } = file.read(EdgeFile);
  await file.locate(() => checkSidecars(rest.device, sockets));
  const tokenPath = file.resolve(tokenFile);
  const options = {
    ...rest,
    stateDirectory: file.resolve(rest.stateDirectory),
    device: file.withPath(rest.device),
    token: () => readText('the token file', tokenPath),
    proxy: proxy === 'environment' ? proxyFromEnvironment : proxy,
    snapshotValidMs: inMs(snapshotValidSeconds),
    logger,
  };
  const gateway = await file.locate(() => EdgeGateway.start(options as never));
  const sidecars = await startSidecars(file, sockets, gateway);

  // An edge that is rejected before it was ever online has a wrong configuration, and the program ends. Later the
  // program goes on, because a new token is enough.
  const failed = new Promise<never>((_, reject) => {
    let wasOnline = false;
    let isLogged = false;
    const follow = (): void => {
      const { state, failure, site } = gateway;
      wasOnline ||= state === 'online';
      if (site !== undefined && !isLogged) {
        isLogged = true;
        const addresses = { ...gateway.addresses, ...sidecars };
        logger.info({ site }, readyLine(`edge gateway of ${site}`, addresses));
      }
      if (state !== 'rejected' || wasOnline) return;
      const { error, remedy } = failure!;
      if (remedy === 'token') error.message += `; put a new token into ${tokenPath}`;
      reject(error);
    };
    gateway.on('state', follow);
    follow();
  });
  failed.catch(() => {});
  return { failed, close: () => gateway.close() };
});
