/**
 * `sockets-cloud-child.ts DIRECTORY PORT`: a cloud gateway whose device is a stack of sockets, in a process of its own,
 * which lives until it is killed. The service `bus` is what listens at this port of 127.0.0.1. It prints the port of the
 * tunnel and a token for `site-a`, as JSON in a line.
 * @module
 */
import { CloudGateway } from '../../src/gateway/index.ts';

const [stateDirectory, port] = process.argv.slice(2);
const lan = {
  sources: ['10.0.0.0/24', '127.0.0.0/8'],
  pools: ['10.0.0.128/25'],
  zone: 'example.test',
};
const cloud = await CloudGateway.start({
  trustDomain: 'example.test',
  stateDirectory: stateDirectory!,
  tunnel: '127.0.0.1:0',
  device: { type: 'sockets' },
  desired: {
    sites: ['cloud', 'site-a'].map((name) => ({ name, ...lan })),
    services: [{ name: 'bus', site: 'cloud', address: '127.0.0.1', ports: [`tcp/${port}`] }],
    exposures: [{ service: 'bus', site: 'site-a' }],
  },
});
const token = await cloud.createToken({ site: 'site-a' });
process.stdout.write(`${JSON.stringify({ port: cloud.addresses.tunnels[0]!.port, token })}\n`);
