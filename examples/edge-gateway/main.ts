/**
 * `edge-gateway DIRECTORY [PORT]`: an edge gateway in a program of your own, to copy. It runs without root, and leads a port of this
 * machine to a service of the cloud. The command `virtual-presence edge edge.yaml` does the same with a file. The first
 * start needs VP_TOKEN.
 * @module
 */
import { EdgeGateway } from 'virtual-presence';

const [stateDirectory = './edge', port = '5672'] = process.argv.slice(2);
const log = (_: object, message: string): void => console.error(message);
const edge = await EdgeGateway.start({
  stateDirectory, // key, certificate, last snapshot
  token: process.env.VP_TOKEN, // needed when there is no certificate yet
  device: { type: 'sockets' },
  logger: { debug: () => {}, info: log, warn: log, error: log },
});
edge.on('problem', ({ error }) => console.error(error.message));
process.once('SIGTERM', () => edge.close());

// Rejects with the reason if the cloud refuses this gateway; a service manager starts it again.
await edge.ready();
const { address } = await edge.sockets.forward(0, { host: 'rabbitmq', port: Number(port) });
console.log(JSON.stringify(address));
