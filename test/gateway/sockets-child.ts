/**
 * A cloud gateway with a host behind it, in a process of its own. Prints a token for `site-a`, and lives until it is
 * killed. The host takes whatever comes to its port 9, and answers with how many bytes there were. The file that the
 * argument names says in three numbers how many times it was written, how many segments the host has received, and how
 * many timers its TCP has: a process whose event loop is blocked can read it.
 * @module
 */
import { openSync, writeSync } from 'node:fs';
import { MemoryDevice } from '../../src/device/index.ts';
import { CloudGateway } from '../../src/gateway/index.ts';
import { SocketStack } from '../../src/sockets/index.ts';
import { pump } from '../support/device-pump.ts';
import { ANY_PORT, LAN, memory } from './scene.ts';

const [near, far] = MemoryDevice.pair();
const host = new SocketStack();
host.setSite({ sources: ['10.0.0.5/32'], pools: LAN.pools, zone: LAN.zone, hosts: [] });
pump(host, far);
host
  .createServer({ allowHalfOpen: true }, (socket) => {
    let length = 0;
    socket.on('data', (chunk: Buffer) => {
      length += chunk.length;
    });
    socket.on('end', () => socket.end(String(length)));
  })
  .listen(9);
const cloud = await CloudGateway.start({
  trustDomain: 'example.test',
  tunnel: ANY_PORT,
  device: near,
  ...memory(),
  desired: {
    sites: ['cloud', 'site-a'].map((name) => ({ name, ...LAN })),
    services: [{ name: 'bus', site: 'cloud', address: '10.0.0.5', ports: ['tcp/9'] }],
    exposures: [{ service: 'bus', site: 'site-a' }],
  },
});
const file = openSync(process.argv[2]!, 'w');
const progress = new Float64Array(3);
function report(): void {
  progress[0]!++;
  progress[1] = host.tcp.counters.received;
  progress[2] = host.tcp.sizes.timers;
  writeSync(file, progress, 0, progress.byteLength, 0);
}
report();
setInterval(report, 20);
process.stdout.write(`${await cloud.createToken({ site: 'site-a' })}\n`);
