/**
 * The scene in network namespaces: each host has its own kernel network, and each gateway a TUN.
 * @module
 */
import { CloudProcess, type GatewayProcess, startEdge } from './gateways.ts';
import { isInstalled, ZONE } from './place.ts';
import { startRabbitMq } from './rabbitmq.ts';
import { eventually, expect, LeftOut, type Report } from './report.ts';
import { runSteps } from './steps.ts';
import { buildTopology, CLOUD_WAN, LAN_GATEWAY } from './topology.ts';

const device = {
  type: 'tun',
  name: 'vp0',
  mtu: 1500,
  routes: ['10.0.0.128/25'],
  proxyArp: ['lan0'],
};
const dns = { listen: `${LAN_GATEWAY}:53` };

export async function runScene(report: Report, directory: string): Promise<void> {
  report.say('Three networks, all of them 10.0.0.0/24, and a host 10.0.0.5 in each.');
  const { broker, cloudGateway, control, sites } = await buildTopology(directory);
  const a = sites.a.compute;
  const b = sites.b.compute;
  const rabbitMq = startRabbitMq(broker, directory);
  rabbitMq.catch(() => {});
  await broker.start('rest-service', ['9696', '9292', '5000']);
  await broker.start('data-service', ['9697']);
  await a.start('console', ['compute host of site A', '6080', '6081']);
  await b.start('console', ['compute host of site B', '6080', '6081']);

  const cloud = new CloudProcess(cloudGateway, `${directory}/cloud`, {
    workers: Number(process.env.VP_DEMO_WORKERS ?? 1),
    device,
    tunnel: `${CLOUD_WAN}:7443`,
    enrolment: { listen: `${CLOUD_WAN}:7440`, endpoints: [`https://${CLOUD_WAN}:7440`] },
    dns,
  });
  const edges: Partial<Record<'a' | 'b', GatewayProcess>> = {};
  const endpoints = { cloud: [`${CLOUD_WAN}:7443`] };
  const refused = async (site: string) => (await cloud.status(site)).verdicts.DropNotPermitted!;

  await runSteps(report, {
    a,
    b,
    control,
    broker: '10.0.0.5',
    rabbitMq,
    cloud,
    edges,
    async startEdge(site, token) {
      const home = `${directory}/site-${site}`;
      const edge = startEdge(sites[site].gateway, home, token, { ...endpoints, device, dns });
      edges[site] = edge;
      const line = await edge.logged(/ up to /);
      await edge.logged(/revision \d+, [1-9]/);
      return line;
    },
    startImpostor(token) {
      // The TUN and the DNS port of this machine are in use by the gateway of site B.
      const udp = { type: 'udp', local: '127.0.0.1:0', peer: '127.0.0.1:9' };
      const home = `${directory}/impostor`;
      return startEdge(sites.b.gateway, home, token, { ...endpoints, device: udp });
    },
    async refusedPort() {
      const before = await refused('site-a');
      await control.get('http://10.0.0.5:5000/'); // it is there, for the cloud
      const { stdout } = await a.connect(`neutron.${ZONE}`, 5000);
      expect(stdout.trim() === 'timeout', `port 5000 answered ${stdout}`);
      const after = await refused('site-a');
      expect(after > before, 'the counter did not move');
      return `keystone's port 5000: no answer; DropNotPermitted of site-a ${before} -> ${after}`;
    },
    async refusedService() {
      const presence = await b.resolve(`neutron.${ZONE}`);
      const name = await b.run(['getent', 'ahostsv4', `glance.${ZONE}`]);
      expect(name.code !== 0, `glance has an address at site B: ${name.stdout}`);
      await a.resolve(`glance.${ZONE}`);
      const before = await refused('site-b');
      const { stdout } = await b.connect(presence, 9292);
      expect(stdout.trim() === 'timeout', `glance answered site B: ${stdout}`);
      const after = await refused('site-b');
      expect(after > before, 'the counter did not move');
      return `glance is for site A only: no name at B, no answer; DropNotPermitted of site-b ${before} -> ${after}`;
    },
    async refusedSource() {
      const presence = await a.resolve(`neutron.${ZONE}`);
      await a.ip('address', 'add', '192.0.2.66/32', 'dev', 'lo');
      const spoofed = async () => {
        const { edge } = await cloud.status('site-a');
        return edge?.counters.outboundDropSpoofed ?? 0;
      };
      const before = await spoofed();
      const { stdout } = await a.connect(presence, 9696, '192.0.2.66');
      expect(stdout.trim() === 'timeout', `192.0.2.66 was answered: ${stdout}`);
      // The edge reports its counters at intervals.
      const after = await eventually('a rise of the counter of spoofed packets', async () => {
        const count = await spoofed();
        return count > before ? count : undefined;
      });
      return `192.0.2.66 is no address of site A; outboundDropSpoofed of its edge ${before} -> ${after}`;
    },
    async ping() {
      if (!isInstalled('ping')) {
        throw new LeftOut('ping is not installed (Debian package iputils-ping)');
      }
      const { code, stdout } = await a.run(['ping', '-c', '5', '-i', '0.2', `rabbitmq.${ZONE}`]);
      expect(code === 0 && / 0% packet loss/.test(stdout), `ping: ${stdout.trim()}`);
      return stdout.trim().split('\n').slice(-2).join('; ');
    },
  });
}
