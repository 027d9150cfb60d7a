/**
 * Many sites under traffic, all in this process: real tunnels over loopback, real certificates, a device
 * in memory for the cloud's network.
 *
 * Every site has one host, which sends numbered packets to the service of the cloud, and receives numbered
 * packets from there. Packets arrive in order on a tunnel, so a lost or duplicated packet is detected
 * at once.
 * @module
 */
import { EventEmitter } from 'node:events';
import { systemClock } from '../../src/base/clock.ts';
import { PresenceController } from '../../src/control/index.ts';
import { CloudDataPlane } from '../../src/dataplane/index.ts';
import { MemoryDevice } from '../../src/device/index.ts';
import {
  type CaMaterial,
  CertificateAuthority,
  createSigningRequest,
  generateGatewayKey,
  parseToken,
} from '../../src/pki/index.ts';
import { CLOUD, Registry } from '../../src/registry/index.ts';
import type { Store } from '../../src/store/index.ts';
import {
  PacketTranslator,
  type PlanChanges,
  type TranslationPlanInput,
} from '../../src/translator/index.ts';
import { Revoker } from '../../src/trust/index.ts';
import {
  CloseCode,
  type Credentials,
  MtlsTunnel,
  type TunnelListener,
} from '../../src/tunnel/index.ts';
import { clockOf } from '../support/clock-of.ts';

export const TRUST_DOMAIN = 'openstack.test';
/** The address of the service in the cloud, and of the host in each site. */
export const SERVICE = { address: '10.0.0.5', port: 7000 } as const;
export const HOST = { address: '10.0.0.20', port: 9000 } as const;

export const siteName = (number: number): string => `site-${number}`;

/** The desired state: the service is exposed to every site, and the host of every site to the cloud. */
export function desired(count: number): object {
  const names = Array.from({ length: count }, (_, i) => siteName(i));
  const realm = { sources: ['10.0.0.0/25'], zone: TRUST_DOMAIN };
  return {
    sites: [
      { name: CLOUD, ...realm, pools: ['100.64.0.0/16'] },
      ...names.map((name) => ({ name, ...realm, pools: ['10.0.0.128/25'] })),
    ],
    services: [
      { name: 'service', site: CLOUD, address: SERVICE.address, ports: [`udp/${SERVICE.port}`] },
      ...names.map((name) => ({
        ...{ name: `host-of-${name}`, site: name },
        ...{ address: HOST.address, ports: [`udp/${HOST.port}`] },
      })),
    ],
    exposures: [
      ...names.map((site) => ({ service: 'service', site })),
      ...names.map((name) => ({ service: `host-of-${name}`, site: CLOUD })),
    ],
  };
}

/** One cloud gateway, built as an embedding program builds it. */
export class Cloud extends EventEmitter<{ tunnel: [MtlsTunnel] }> {
  readonly authority: CertificateAuthority;
  readonly controller: PresenceController;
  readonly translator: PacketTranslator;
  readonly listener: TunnelListener;
  readonly revoker: Revoker;
  /** The cloud's network. */
  readonly network: MemoryDevice;
  readonly #opened: (() => unknown)[];

  private constructor(
    parts: Pick<
      Cloud,
      'authority' | 'controller' | 'translator' | 'listener' | 'revoker' | 'network'
    > & { readonly opened: (() => unknown)[] }
  ) {
    super();
    this.authority = parts.authority;
    this.controller = parts.controller;
    this.translator = parts.translator;
    this.listener = parts.listener;
    this.revoker = parts.revoker;
    this.network = parts.network;
    this.#opened = parts.opened;
  }

  /**
   * @param desired undefined if another gateway of the store has applied it
   * @param now its wall clock, in ms since 1970
   */
  static async start(
    store: Store,
    ca: CaMaterial,
    desired?: object,
    now: () => number = Date.now
  ): Promise<Cloud> {
    const opened: (() => unknown)[] = [];
    const registry = await Registry.open(store);
    opened.push(() => registry.close());
    if (desired !== undefined) await registry.apply(desired, 'file');
    const trustDomain = TRUST_DOMAIN;
    const authority = await CertificateAuthority.open({
      ...{ trustDomain, store, clock: clockOf(now) },
      ...ca,
    });
    opened.push(() => authority.close());

    const [device, network] = MemoryDevice.pair({ queueLength: 65_536 });
    const translator = new PacketTranslator();
    /** Paths that were removed because their site left the plan, since the last termination. */
    let pathsRemoved = 0;
    const controller = await PresenceController.start({
      registry,
      store,
      clock: { ...systemClock, wallMs: now },
      translator: {
        load: (plan: TranslationPlanInput) => {
          pathsRemoved += translator.load(plan);
        },
        apply: (changes: PlanChanges) => {
          pathsRemoved += translator.apply(changes);
        },
      },
    });
    opened.push(() => controller.close());
    const dataPlane = new CloudDataPlane({
      cloud: CLOUD,
      device,
      translator,
      admit: (...client) => controller.admit(...client),
    });
    opened.push(() => device.close());

    const listener = await MtlsTunnel.listen({
      host: '127.0.0.1',
      port: 0,
      clock: { ...systemClock, wallMs: now },
      ...(await issueToCloud(authority)),
      authorize: ({ certificate }) =>
        authority.isRevoked(certificate)
          ? { code: CloseCode.Revoked, reason: 'the certificate is revoked' }
          : undefined,
      // All sites have one address here, and one may be revoked again and again.
      maxConnectionRate: 1_000,
      maxTunnelRate: 100,
    });
    opened.push(() => listener.close());
    const revoker = new Revoker({
      revocations: authority.revocations,
      controller,
      terminateRevoked: async (reason) => {
        const isRevoked = authority.isRevoked.bind(authority);
        const tunnelsClosed = listener.terminate(isRevoked, { code: CloseCode.Revoked, reason });
        const removed = pathsRemoved;
        pathsRemoved = 0;
        return { tunnelsClosed, pathsRemoved: removed };
      },
    });
    opened.push(() => revoker.close());
    const parts = { authority, controller, translator, listener, revoker, network, opened };
    const cloud = new Cloud(parts);
    listener.on('tunnel', (tunnel) => {
      if (tunnel.peer?.role !== 'site') return;
      const detach = dataPlane.attach(tunnel.peer.site, tunnel);
      tunnel.on('down', detach);
      cloud.emit('tunnel', tunnel);
    });
    dataPlane.start();
    return cloud;
  }

  /** Obtains a new certificate for a new key of the site, with a new token. */
  async enrol(site: string): Promise<Credentials> {
    const endpoints = ['https://192.0.2.1:7444'];
    const token = await this.authority.createToken({ site, endpoints });
    const { id: tokenId, secret } = parseToken(token);
    const { privateKeyPem: key } = generateGatewayKey();
    const csrPem = createSigningRequest(key);
    const { certificatePem: cert } = await this.authority.enrol({ tokenId, secret, csrPem });
    return { key, cert, ca: this.authority.trustBundlePem };
  }

  /** Returns the presence of the host of one realm in another. */
  presenceOf(of: { realm: string; address: string }, realm: string): string {
    const found = this.controller
      .presences()
      .find(
        (it) => it.realm === realm && it.of.realm === of.realm && `${it.of.address}` === of.address
      );
    if (found === undefined) throw new Error(`${of.realm} ${of.address} is not in ${realm}`);
    return `${found.address}`;
  }

  async close(): Promise<void> {
    for (const end of this.#opened.splice(0).reverse()) await end();
  }
}

async function issueToCloud(authority: CertificateAuthority): Promise<Credentials> {
  const { privateKeyPem: key } = generateGatewayKey();
  const identity = { trustDomain: TRUST_DOMAIN, role: 'cloud' } as const;
  const { certificatePem: cert } = await authority.issue(createSigningRequest(key), identity);
  return { key, cert, ca: authority.trustBundlePem };
}
