/** A cloud and two sites in one process, with the same addresses in all three networks. */
import {
  CloudGateway,
  EdgeGateway,
  MemoryDevice,
  MemorySecrets,
  MemoryStore,
} from 'virtual-presence';
import { readUdpFrame, type UdpDatagram, udpFrame } from 'virtual-presence/packet';

const lan = { sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] };
const memory = () => ({ store: new MemoryStore(), secrets: new MemorySecrets() });

// The hosts of a network are at the other end of their gateway's device.
const send = (host: MemoryDevice, frame: Buffer) => host.write(frame, 0, frame.length);
function receive(host: MemoryDevice, take: (datagram: UdpDatagram) => void): void {
  const buffer = Buffer.alloc(66_000); // This is room for the largest packet.
  host.start(() => take(readUdpFrame(buffer.subarray(0, host.read(buffer, 0)))!));
}

const [device, service] = MemoryDevice.pair();
const listen = { trustDomain: 'example.test', tunnel: '127.0.0.1:0' };
const cloud = await CloudGateway.start({ ...listen, device, ...memory() });
await cloud.apply({
  sites: ['cloud', 'site-a', 'site-b'].map((name) => ({ name, zone: `${name}.test`, ...lan })),
  services: [{ name: 'echo', site: 'cloud', address: '10.0.0.5', ports: ['udp/7'] }],
  exposures: ['site-a', 'site-b'].map((site) => ({ service: 'echo', site })),
});
receive(service, ({ source, sourcePort, destination, destinationPort, payload }) => {
  const client = cloud.whois('cloud', source)!;
  console.log(`${source} is ${client.address} of ${client.site}, and says "${payload}"`);
  const reply = { source: destination, sourcePort: destinationPort, payload };
  send(service, udpFrame({ ...reply, destination: source, destinationPort: sourcePort }));
});

const edges: EdgeGateway[] = [];
for (const site of ['site-a', 'site-b']) {
  const [device, client] = MemoryDevice.pair();
  const token = await cloud.createToken({ site });
  const edge = await EdgeGateway.start({ token, device, ...memory() });
  await edge.ready({ signal: AbortSignal.timeout(30_000) });
  const destination = edge.lookup('echo')[0]!.addresses[0]!;
  const answer = new Promise<UdpDatagram>((resolve) => receive(client, resolve));
  const from = { source: '10.0.0.5', sourcePort: 40_000, payload: Buffer.from(`I am ${site}`) };
  send(client, udpFrame({ ...from, destination, destinationPort: 7 }));
  console.log(`${site}: echo is ${destination}, and answers "${(await answer).payload}"`);
  edges.push(edge);
}

const [edge, other] = edges as [EdgeGateway, EdgeGateway];
const rejected = new Promise<void>((resolve) => {
  edge.on('state', ({ state }) => state === 'rejected' && resolve());
});
await cloud.revoke({ site: 'site-a' }, 'keyCompromise'); // The site is cut off from here on.
await rejected; // Its edge knows why from here on.
const { kind, party, remedy } = edge.failure!;
console.log(`site-a: ${edge.state}, ${kind} (${party}, ${remedy}); site-b: ${other.state}`);
await Promise.all([...edges, cloud].map((gateway) => gateway.close()));
