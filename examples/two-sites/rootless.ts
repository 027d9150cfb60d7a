/**
 * The scene without root and without namespaces: the same three programs with devices of the type `sockets`, and the
 * same services and clients, as processes of this machine.
 *
 * Each of the three networks has the host 10.0.0.5, whose services are at loopback addresses of this machine that only
 * the gateway of that network knows. Clients have the names and the presences of their own site: through the proxy
 * and the published addresses of its gateway.
 * @module
 */
import { once } from 'node:events';
import { connect } from 'node:net';
import { join } from 'node:path';
import { CloudProcess, type GatewayProcess, startEdge } from './gateways.ts';
import { LocalPlace } from './local-place.ts';
import { claimNetwork } from './loopback.ts';
import { ZONE } from './place.ts';
import { checkRabbitMq, startRabbitMq } from './rabbitmq.ts';
import { eventually, expect, LeftOut, type Report } from './report.ts';
import { runSteps } from './steps.ts';

/** The compute host of each site, which has the services and the clients. */
const HOST = '10.0.0.5';
const CONTROL = '10.0.0.9';
const LOOPBACK = '127.0.0.1';
const FOREIGN = '192.0.2.66';

type SiteLetter = 'a' | 'b';

export async function runRootlessScene(report: Report, directory: string): Promise<void> {
  const network = await claimNetwork();
  const services = { cloud: `${network}.1.5`, a: `${network}.2.5`, b: `${network}.3.5` };
  const published = {
    cloud: `${network}.11.0/24`,
    a: `${network}.12.0/24`,
    b: `${network}.13.0/24`,
  };
  report.say(
    'Three networks, all of them 10.0.0.0/24, and a host 10.0.0.5 in each. Their services are at'
  );
  report.say(
    `${services.cloud} (cloud), ${services.a} (site A) and ${services.b} (site B) of this machine.`
  );
  const control = new LocalPlace('the cloud', directory, 'cloud');
  const sites = {
    a: new LocalPlace('site A', directory, 'site-a'),
    b: new LocalPlace('site B', directory, 'site-b'),
  };
  const { a, b } = sites;

  const rabbitMq = startLocalRabbitMq(control, directory, services.cloud);
  rabbitMq.catch(() => {});
  const at = (address: string) => ({ VP_DEMO_ADDRESS: address, VP_DEMO_PROXY_PROTOCOL: '2' });
  await control.start('rest-service', ['9696', '9292', '5000'], at(services.cloud));
  await control.start('data-service', ['9697'], at(services.cloud));
  await a.start('console', ['compute host of site A', '6080', '6081'], at(services.a));
  await b.start('console', ['compute host of site B', '6080', '6081'], at(services.b));

  const cloud = new CloudProcess(control, join(directory, 'cloud'), {
    device: {
      type: 'sockets',
      address: CONTROL,
      backend: {
        hosts: { [HOST]: services.cloud },
        proxyProtocol: ['neutron', 'glance', 'keystone'],
      },
    },
    tunnel: '127.0.0.1:0',
    ...LocalPlace.keys(published.cloud),
  });
  const cloudUsed = control.use(cloud);
  cloudUsed.catch(() => {});
  const edges: Partial<Record<SiteLetter, GatewayProcess>> = {};
  const refused = async (site: string) => (await cloud.status(site)).verdicts.DropNotPermitted!;

  const start = async (site: SiteLetter, token: string, address = HOST): Promise<string> => {
    const edge = startEdge(sites[site], sites[site].home, token, {
      device: {
        type: 'sockets',
        address,
        services: [{ address: HOST, ports: ['tcp/6080-6081'], proxyProtocol: true }],
        backend: { hosts: { [HOST]: services[site] } },
      },
      ...LocalPlace.keys(published[site]),
    });
    edges[site] = edge;
    const line = await edge.logged(/ up to /);
    await edge.logged(/revision \d+, [1-9]/);
    await sites[site].use(edge);
    return line;
  };

  await runSteps(report, {
    a,
    b,
    control,
    broker: services.cloud,
    rabbitMq,
    cloud,
    edges,
    startEdge: async (site, token) => {
      await cloudUsed;
      return start(site, token);
    },
    startImpostor: (token) =>
      startEdge(b, join(directory, 'impostor'), token, { device: { type: 'sockets' } }),
    async refusedPort() {
      expect((await canConnect(services.cloud, 5000)) ?? false, 'keystone is not there');
      const before = await refused('site-a');
      const { stdout } = await a.connect(`neutron.${ZONE}`, 5000);
      expect(stdout.trim() === 'ECONNREFUSED', `port 5000 answered ${stdout}`);
      const after = await refused('site-a');
      expect(after === before, `the cloud counted ${after - before} packets`);
      return `keystone's port 5000: ECONNREFUSED by the gateway of site A, which sends nothing; DropNotPermitted of site-a stays ${after}`;
    },
    async refusedService() {
      const presence = await b.resolve(`neutron.${ZONE}`);
      const name = await b.resolve(`glance.${ZONE}`).catch(({ code }) => code);
      expect(name === 'ENOTFOUND', `glance has an address at site B: ${name}`);
      await a.resolve(`glance.${ZONE}`);
      const byName = await b.connect(`glance.${ZONE}`, 9292);
      expect(byName.stdout.trim() === 'EHOSTUNREACH', `glance answered site B: ${byName.stdout}`);
      const { stdout } = await b.connect(presence, 9292);
      expect(stdout.trim() === 'ECONNREFUSED', `glance answered site B: ${stdout}`);
      return 'glance is for site A only: no name at B, and ECONNREFUSED at the presence of its host';
    },
    async refusedSource(say) {
      await edges.a!.end();
      await start('a', '', FOREIGN);
      const problem = await edges.a!.logged(new RegExp(FOREIGN));
      say(problem);
      const { stdout } = await a.connect(`neutron.${ZONE}`, 9696);
      expect(stdout.trim() === 'general failure', `${FOREIGN} was answered: ${stdout}`);
      await edges.a!.end();
      await start('a', '');
      await a.get(`http://neutron.${ZONE}:9696/`);
      return `an edge of site A with the address ${FOREIGN} connects nobody; with ${HOST} it does again`;
    },
    async ping() {
      throw new LeftOut(
        'a proxy and published ports carry TCP; a program with the library in it calls sockets.ping'
      );
    },
  });
}

/** Starts RabbitMQ so that it shares no port with another one, and listens on loopback addresses alone. */
async function startLocalRabbitMq(
  place: LocalPlace,
  directory: string,
  address: string
): Promise<void> {
  checkRabbitMq();
  const bytes = address.split('.').map(Number);
  // No other copy of the scene has this number.
  const number = bytes[1]!;
  const epmdPort = 4400 + number;
  // RabbitMQ would start it as a daemon.
  const epmd = place.spawn(['epmd', '-port', String(epmdPort), '-address', LOOPBACK]);
  await once(epmd, 'spawn');
  await eventually('epmd', () => canConnect(LOOPBACK, epmdPort));
  await startRabbitMq(place, directory, address, {
    ERL_EPMD_PORT: String(epmdPort),
    RABBITMQ_DIST_PORT: String(25_700 + number),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `+S 1:1 +sbwt none -kernel inet_dist_use_interface {${bytes}}`,
  });
}

function canConnect(host: string, port: number): Promise<true | undefined> {
  return new Promise((resolve) => {
    const socket = connect(port, host);
    socket.once('connect', () => {
      socket.destroy();
      resolve(true);
    });
    socket.once('error', () => resolve(undefined));
  });
}
