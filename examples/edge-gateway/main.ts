/**
 * `edge-gateway CONFIG.yaml`: runs until SIGTERM.
 * @module
 */
import { openDevice } from 'virtual-presence';
import { ConfigFile } from '../program/config-file.ts';
import { deviceOf } from '../program/device.ts';
import { log, run } from '../program/run.ts';
import { EdgeConfigSchema } from './config.ts';
import { startEdgeGateway } from './gateway.ts';

await run('edge-gateway', async (path) => {
  const file = new ConfigFile(path);
  const config = file.read(EdgeConfigSchema);
  const resolve = (text: string) => file.resolve(text);
  const device = deviceOf(config.device, resolve);
  return file.locate(() =>
    startEdgeGateway({
      config: {
        ...config,
        device,
        stateDirectory: resolve(config.stateDirectory),
        tokenFile: resolve(config.tokenFile),
      },
      openDevice: () => openDevice(device, (problem) => log(`device: ${problem}`)),
      log,
    })
  );
});
