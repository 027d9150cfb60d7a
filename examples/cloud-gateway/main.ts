/**
 * `cloud-gateway CONFIG.yaml`: runs until SIGTERM; SIGHUP reads the file's desired state anew.
 * @module
 */
import { isDeepStrictEqual } from 'node:util';
import { openDevice } from 'virtual-presence';
import { ConfigFile } from '../program/config-file.ts';
import { deviceOf } from '../program/device.ts';
import { log, type Running, run } from '../program/run.ts';
import { type CloudConfig, CloudConfigSchema } from './config.ts';
import { startCloudGateway } from './gateway.ts';

await run('cloud-gateway', startFromFile);

async function startFromFile(path: string): Promise<Running> {
  const file = new ConfigFile(path);
  const config = file.read(CloudConfigSchema);
  const resolve = (text: string) => file.resolve(text);
  const device = deviceOf(config.device, resolve);
  return file.locate(() =>
    startCloudGateway({
      config: {
        ...config,
        device,
        stateDirectory: resolve(config.stateDirectory),
        adminSocket: resolve(config.adminSocket),
        trust: {
          ...config.trust,
          passphraseFile: config.trust.passphraseFile && resolve(config.trust.passphraseFile),
        },
      },
      openDevice:
        device.type === 'tun'
          ? undefined
          : () => openDevice(device, (problem) => log(`device: ${problem}`)),
      log,
      reread: async (apply) => {
        const again = new ConfigFile(path);
        const next = again.read(CloudConfigSchema);
        await again.locate(() => apply(next.desired));
        return keysOf(config).filter(
          (key) => key !== 'desired' && !isDeepStrictEqual(next[key], config[key])
        );
      },
    })
  );
}

function keysOf(config: CloudConfig): (keyof CloudConfig)[] {
  return Object.keys(config) as (keyof CloudConfig)[];
}
