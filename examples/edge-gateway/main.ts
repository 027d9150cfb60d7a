/**
 * `edge-gateway CONFIG.yaml`: runs until SIGTERM.
 * @module
 */
import { ConfigFile } from '../program/config-file.ts';
import { openDevice } from '../program/device.ts';
import { log, run } from '../program/run.ts';
import { EdgeConfigSchema } from './config.ts';
import { startEdgeGateway } from './gateway.ts';

await run('edge-gateway', async (path) => {
  const file = new ConfigFile(path);
  const config = file.read(EdgeConfigSchema);
  const resolve = (text: string) => file.resolve(text);
  return file.locate(() =>
    startEdgeGateway({
      config: {
        ...config,
        stateDirectory: resolve(config.stateDirectory),
        tokenFile: resolve(config.tokenFile),
      },
      openDevice: () => openDevice(config.device, resolve),
      log,
    })
  );
});
