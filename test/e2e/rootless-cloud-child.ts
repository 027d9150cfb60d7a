/**
 * `rootless-cloud-child.ts DIRECTORY ADDRESS NAME=PORT...`: a cloud gateway whose device is a stack of sockets, in a
 * process of its own, which lives until it is killed. The tunnels end at port 7443 of the loopback address, and the
 * services are what listens at their ports there. In the realm of the cloud they have addresses that no machine has. It
 * prints a token for `site-a`.
 * @module
 */
import { CloudGateway } from '../../src/gateway/index.ts';
import { LAN, TUNNEL_PORT, ZONE } from './rootless-scene.ts';

const [stateDirectory, address, ...listed] = process.argv.slice(2);
const services = listed.map((each, i) => {
  const [name, port] = each.split('=');
  return { name: name!, site: 'cloud', address: `10.0.0.${10 + i}`, ports: [`tcp/${port}`] };
});
const cloud = await CloudGateway.start({
  trustDomain: ZONE,
  stateDirectory: stateDirectory!,
  tunnel: `${address}:${TUNNEL_PORT}`,
  device: {
    type: 'sockets',
    backend: {
      hosts: Object.fromEntries(services.map((service) => [service.address, address!])),
      loopbackSource: true,
    },
  },
  desired: {
    sites: ['cloud', 'site-a'].map((name) => ({ name, ...LAN })),
    services,
    exposures: services.map(({ name }) => ({ service: name, site: 'site-a' })),
  },
});
process.stdout.write(`${await cloud.createToken({ site: 'site-a' })}\n`);
