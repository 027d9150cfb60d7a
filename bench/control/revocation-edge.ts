/**
 * A thread with an edge gateway and a host behind it, which sends numbered packets to a service of the cloud. Its
 * tunnel is TLS over loopback. The thread ends on the message `stop`, with a report of what has arrived.
 * @module
 */
import { once } from 'node:events';
import { parentPort, workerData } from 'node:worker_threads';
import { EdgeGateway } from '../../src/gateway/index.ts';
import { MemorySecrets, MemoryStore } from '../../src/store/index.ts';
import { Network, Pace } from './traffic.ts';

export interface EdgeOptions {
  readonly token: string;
  /** The host. */
  readonly address: string;
  readonly port: number;
  readonly packetsPerSecond: number;
}

export interface EdgeReport {
  readonly sent: number;
  readonly received: number;
  /** The greatest number of a packet that arrived; -1 if none did. */
  readonly last: number;
  /** How often the cloud refused the edge, or ended its tunnel, because it is revoked. */
  readonly refusals: number;
}

const { token, address, port, packetsPerSecond } = workerData as EdgeOptions;
let received = 0;
let last = -1;
let refusals = 0;
const network = new Network((_, number) => {
  received++;
  last = Math.max(last, number);
});
const edge = await EdgeGateway.start({
  token,
  device: network.device,
  store: new MemoryStore(),
  secrets: new MemorySecrets(),
});
edge.on('state', ({ state }) => {
  if (state === 'rejected') refusals++;
});
await edge.ready();
const destination = `${edge.lookup('svc-0')[0]!.addresses[0]}`;
const ends = { source: address, sourcePort: port, destination, destinationPort: port };
const pace = new Pace(packetsPerSecond, (number) => network.send(ends, number));
await once(parentPort!, 'message');
pace.stop();
const report: EdgeReport = { sent: pace.next, received, last, refusals };
await edge.close();
parentPort!.postMessage(report);
