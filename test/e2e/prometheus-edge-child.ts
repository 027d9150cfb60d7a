/**
 * An edge gateway in a process of its own, which a test stops and kills: `STATE_DIRECTORY SNAPSHOT_VALID_MS [TOKEN]`. It
 * prints the port of its metrics.
 */
import { EdgeGateway } from '../../src/gateway/index.ts';
import { Hosts } from '../gateway/scene.ts';

const [stateDirectory, snapshotValidMs, token] = process.argv.slice(2);
const edge = await EdgeGateway.start({
  device: new Hosts().device,
  stateDirectory: stateDirectory!,
  snapshotValidMs: Number(snapshotValidMs),
  token,
  metrics: { listen: '127.0.0.1:0' },
});
process.on('disconnect', () => process.exit(0));
process.send!(edge.addresses.metrics!.port);
