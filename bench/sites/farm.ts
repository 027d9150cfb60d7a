/**
 * Many edge gateways in one process, each with its own certificate, tunnel, data plane and device. It does what
 * `examples/edge-gateway` does, except DNS, and reports in lines of JSON.
 * @module
 */
import { readFileSync } from 'node:fs';
import { LinuxTun, MemoryDevice, MtlsTunnel, type PacketDevice } from 'virtual-presence';
import { ControlClient } from 'virtual-presence/control';
import { EdgeDataPlane } from 'virtual-presence/dataplane';
import { enrol } from 'virtual-presence/pki';

/** Read from the file that is the only argument. */
export interface FarmConfig {
  readonly cloud: { readonly host: string; readonly port: number };
  readonly sites: readonly FarmSite[];
}

export interface FarmSite {
  /** The token of enrolment. */
  readonly token: string;
  /** Name of the TUN that it opens; without it the site has a device in memory, and no traffic. */
  readonly tun?: string;
}

/** A line of its output. */
export type FarmLine =
  | { readonly event: 'opened' }
  /** The site is up; at this address it finds the service. */
  | { readonly event: 'up'; readonly site: string; readonly address: string }
  | { readonly event: 'down'; readonly site: string; readonly reason: string };

async function startEdge(cloud: FarmConfig['cloud'], { token, tun }: FarmSite): Promise<void> {
  const device = await openDevice(tun);
  const { key, cert, ca, identity } = await enrol(token);
  if (identity.role !== 'site') throw new Error('the token is not one of a site');
  const { site, trustDomain } = identity;
  const tunnel = MtlsTunnel.dial({
    endpoints: [cloud],
    ...{ key, cert, ca },
    expectedPeer: { trustDomain, role: 'cloud' },
  });
  const dataPlane = new EdgeDataPlane({ device, tunnel });
  const control = await ControlClient.open({ site });
  control.on('snapshot', (snapshot) => {
    dataPlane.filter.setAddresses(snapshot);
    const address = snapshot.hosts[0]?.addresses[0];
    if (address !== undefined) say({ event: 'up', site, address: `${address}` });
  });
  tunnel.on('down', ({ code, reason }) =>
    say({ event: 'down', site, reason: `${code} ${reason}` })
  );
  tunnel.on('refused', ({ error }) => say({ event: 'down', site, reason: error.message }));
  control.attach(tunnel);
  dataPlane.start();
}

async function openDevice(tun: string | undefined): Promise<PacketDevice> {
  if (tun !== undefined) return LinuxTun.open({ name: tun });
  return MemoryDevice.pair()[0];
}

function say(line: FarmLine): void {
  console.log(JSON.stringify(line));
}

const { cloud, sites } = JSON.parse(readFileSync(process.argv[2]!, 'utf8')) as FarmConfig;
// One after the other: the cloud bounds how many handshakes it takes at once.
for (const site of sites) await startEdge(cloud, site);
say({ event: 'opened' });
