/**
 * `cloud-gateway DIRECTORY [PORT]`: a cloud gateway in a program of your own, to copy. It runs without root: clients and services are
 * sockets of this machine. The command `virtual-presence cloud cloud.yaml` does the same with a file.
 * @module
 */
import { CloudGateway, type DesiredInput } from 'virtual-presence';

const [stateDirectory = './cloud', port = '5672'] = process.argv.slice(2);
const realm = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'openstack.test' };
const desired: DesiredInput = {
  sites: [
    { name: 'cloud', ...realm },
    { name: 'site-a', ...realm },
  ],
  services: [{ name: 'rabbitmq', site: 'cloud', address: '10.0.0.5', ports: [`tcp/${port}`] }],
  exposures: [{ service: 'rabbitmq', site: 'site-a' }],
};

const log = (_: object, message: string): void => console.error(message);
const cloud = await CloudGateway.start({
  trustDomain: 'openstack.test', // is in every certificate
  stateDirectory, // the CA and its key, leases, tokens, revocations, the audit log
  adminSocket: `${stateDirectory}/admin.sock`,
  // The service is where the desired state says, unless `backend.hosts` names another address.
  device: { type: 'sockets', backend: { hosts: { '10.0.0.5': '127.0.0.1' } } },
  tunnel: '127.0.0.1:0', // a real gateway has an address that edges reach, and a fixed port
  desired,
  logger: { debug: () => {}, info: log, warn: log, error: log },
});
cloud.on('problem', ({ error }) => console.error(error.message));
process.once('SIGTERM', () => cloud.close());

// A site enrols once with this token, for example by examples/edge-gateway.
console.log(await cloud.createToken({ site: 'site-a' }));
