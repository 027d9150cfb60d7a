/**
 * The cloud's data plane over a translator whose plan is written out: a cloud of both IP versions, a
 * site of IPv4 and a site of IPv6, each under presences of both in the other realms where it matters.
 */

import { CloudDataPlane } from '../../src/dataplane/index.ts';
import type { MemoryDeviceOptions } from '../../src/device/index.ts';
import {
  type EndpointInput,
  PacketTranslator,
  type PermitInput,
  type PresenceInput,
  type RealmInput,
} from '../../src/translator/index.ts';
import { FakeClock } from '../support/fake-clock.ts';
import { FakeTunnel } from '../support/fake-tunnel.ts';
import type { Ends } from '../support/packets.ts';
import { TestDevice } from '../support/test-device.ts';

export type Site = 'site-4' | 'site-6';

export type FlowName =
  | '4 to cloud 6'
  | '4 to cloud 4'
  | '4 to site 6'
  | 'cloud 4 to site 6'
  | 'cloud 6 to site 6';

/** Ends of the flows there are, each as the client's realm has it and as the service's does. */
export const FLOWS: Readonly<Record<FlowName, readonly [Ends, Ends]>> = {
  /** The host of site-4 asks the IPv6 service of the cloud. */
  '4 to cloud 6': [
    { source: '10.0.0.7', destination: '10.0.0.136' },
    { source: 'fd00::7', destination: '2001:db8::5' },
  ],
  /** The same host asks the IPv4 service of the cloud. */
  '4 to cloud 4': [
    { source: '10.0.0.7', destination: '10.0.0.134' },
    { source: '100.64.0.7', destination: '192.0.2.5' },
  ],
  /** The same host asks the service of site-6. */
  '4 to site 6': [
    { source: '10.0.0.7', destination: '10.0.0.137' },
    { source: 'fd00:6::7', destination: '2001:db8:6::5' },
  ],
  /** The IPv4 host of the cloud asks the service of site-6. */
  'cloud 4 to site 6': [
    { source: '192.0.2.8', destination: '100.64.0.9' },
    { source: 'fd00:6::8', destination: '2001:db8:6::5' },
  ],
  /** The IPv6 host of the cloud asks the service of site-6. */
  'cloud 6 to site 6': [
    { source: '2001:db8::8', destination: 'fd00::9' },
    { source: 'fd00:6::9', destination: '2001:db8:6::5' },
  ],
};

export const PORTS: readonly string[] = ['tcp/443', 'udp/53', 'icmp'];

const SERVICE_6: EndpointInput = { realm: 'cloud', address: '2001:db8::5' };
const SERVICE_4: EndpointInput = { realm: 'cloud', address: '192.0.2.5' };
const AT_SITE_6: EndpointInput = { realm: 'site-6', address: '2001:db8:6::5' };
const HOST: EndpointInput = { realm: 'site-4', address: '10.0.0.7' };
const CLOUD_4: EndpointInput = { realm: 'cloud', address: '192.0.2.8' };
const CLOUD_6: EndpointInput = { realm: 'cloud', address: '2001:db8::8' };

const REALMS: readonly RealmInput[] = [
  {
    name: 'cloud',
    sources: ['192.0.2.0/24', '2001:db8::/64'],
    pools: ['100.64.0.0/24', 'fd00::/64'],
  },
  { name: 'site-4', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'] },
  { name: 'site-6', sources: ['2001:db8:6::/64'], pools: ['fd00:6::/64'] },
];
const PRESENCES: readonly PresenceInput[] = [
  { realm: 'site-4', address: '10.0.0.136', of: SERVICE_6 },
  { realm: 'site-4', address: '10.0.0.134', of: SERVICE_4 },
  { realm: 'site-4', address: '10.0.0.137', of: AT_SITE_6 },
  { realm: 'cloud', address: 'fd00::7', of: HOST },
  { realm: 'cloud', address: '100.64.0.7', of: HOST },
  { realm: 'cloud', address: '100.64.0.9', of: AT_SITE_6 },
  { realm: 'cloud', address: 'fd00::9', of: AT_SITE_6 },
  { realm: 'site-6', address: 'fd00:6::7', of: HOST },
  { realm: 'site-6', address: 'fd00:6::8', of: CLOUD_4 },
  { realm: 'site-6', address: 'fd00:6::9', of: CLOUD_6 },
];
const PERMITS: readonly PermitInput[] = [
  { realm: 'site-4', service: SERVICE_6, ports: PORTS },
  { realm: 'site-4', service: SERVICE_4, ports: PORTS },
  { realm: 'site-4', service: AT_SITE_6, ports: PORTS },
  { realm: 'cloud', service: AT_SITE_6, ports: PORTS },
];

export interface MixedCloud {
  readonly lan: TestDevice;
  readonly plane: CloudDataPlane;
  readonly translator: PacketTranslator;
  readonly clock: FakeClock;
  /** The cloud's ends. */
  readonly tunnels: Readonly<Record<Site, FakeTunnel>>;
  /** Has the site's edge send these frames to the cloud, as one batch. */
  send(site: Site, ...frames: Uint8Array[]): void;
  /** Queues these frames for reading from the device. */
  sendFromLan(...frames: Uint8Array[]): void;
  /** The packets that the site's edge received since the last call. */
  takenAt(site: Site): Buffer[];
}

export interface MixedOptions {
  /** What is said of a realm besides its addresses. */
  readonly realms?: Readonly<Record<string, Pick<RealmInput, 'mtu' | 'reject'>>>;
  readonly device?: MemoryDeviceOptions;
  readonly capacity?: number;
  readonly admit?: (translator: PacketTranslator, ...asked: Asked) => Promise<void>;
}

export type Asked = [ingress: string, source: string, egress: string, family: 4 | 6];

export function startMixedCloud(options: MixedOptions = {}): MixedCloud {
  const { realms = {}, admit } = options;
  const translator = new PacketTranslator();
  translator.load({
    realms: REALMS.map((realm) => ({ ...realm, ...realms[realm.name] })),
    presences: PRESENCES,
    permits: PERMITS,
  });
  const clock = new FakeClock();
  const lan = new TestDevice(options.device);
  const plane = new CloudDataPlane({
    cloud: 'cloud',
    device: lan.device,
    translator,
    admit: (...asked) => admit?.(translator, ...asked) ?? Promise.reject(new Error('nobody')),
    clock,
  });
  const [edge4, cloud4] = FakeTunnel.pair('site-4', options.capacity);
  const [edge6, cloud6] = FakeTunnel.pair('site-6', options.capacity);
  const edges = { 'site-4': edge4, 'site-6': edge6 };
  const tunnels = { 'site-4': cloud4, 'site-6': cloud6 };
  const received: Record<Site, Buffer[]> = { 'site-4': [], 'site-6': [] };
  for (const site of ['site-4', 'site-6'] as const) {
    plane.attach(site, tunnels[site]);
    edges[site].onPacket = (buffer, start, end) => {
      received[site].push(Buffer.from(buffer.subarray(start, end)));
    };
  }
  plane.start();
  return {
    lan,
    plane,
    translator,
    clock,
    tunnels,
    send: (site, ...frames) => {
      for (const frame of frames) {
        if (!edges[site].sendPacket(Buffer.from(frame), 0, frame.length)) throw new Error('full');
      }
      edges[site].flush();
      edges[site].deliver();
    },
    sendFromLan: (...frames) => {
      lan.send(...frames);
      lan.run();
    },
    takenAt: (site) => {
      tunnels[site].deliver();
      return received[site].splice(0);
    },
  };
}

/** The path of the reply. */
export function turned({ source, destination }: Ends): Ends {
  return { source: destination, destination: source };
}

export function hex(frames: readonly Uint8Array[]): string[] {
  return frames.map((frame) => Buffer.from(frame).toString('hex'));
}

/** Takes the virtio-net headers, which must be zeros, from frames. */
export function unframed(frames: readonly Uint8Array[]): Uint8Array[] {
  return frames.map((frame) => {
    if (frame.subarray(0, 10).some((byte) => byte !== 0))
      throw new Error('something is left undone');
    return new Uint8Array(frame.subarray(10));
  });
}

export function bytes(length: number, seed: number = 0): Uint8Array {
  return new Uint8Array(length).map((_, i) => (i * 13 + seed) & 255);
}
