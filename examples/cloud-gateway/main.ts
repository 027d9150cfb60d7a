/**
 * `cloud-gateway CONFIG.yaml`: runs until SIGTERM; SIGHUP reads the file's desired state anew.
 * @module
 */
import { ConfigFile } from '../program/config-file.ts';
import { openDevice } from '../program/device.ts';
import { log, run } from '../program/run.ts';
import { CloudConfigSchema } from './config.ts';
import { startCloudGateway } from './gateway.ts';

await run('cloud-gateway', async (path) => {
  const file = new ConfigFile(path);
  const config = file.read(CloudConfigSchema);
  const resolve = (text: string) => file.resolve(text);
  return file.locate(() =>
    startCloudGateway({
      config: {
        ...config,
        stateDirectory: resolve(config.stateDirectory),
        adminSocket: resolve(config.adminSocket),
      },
      openDevice: () => openDevice(config.device, resolve),
      log,
      reread: (apply) => {
        const again = new ConfigFile(path);
        const { desired } = again.read(CloudConfigSchema);
        return again.locate(() => apply(desired));
      },
    })
  );
});
