/**
 * A control plane and a translator as an explanation sees them, without gateways: tunnels and edges are what a test says.
 * @module
 */

import { IpAddress } from '../../src/base/address.ts';
import type { ConnectedEdgeStatus } from '../../src/control/index.ts';
import {
  type ExplainedWorld,
  type ExplainQuery,
  explainFlow,
  type FlowExplanation,
  type SiteTunnelStatus,
} from '../../src/diagnosis/index.ts';
import {
  DESIRED,
  type Desired,
  type Scene,
  type SceneOptions,
  startScene,
} from '../control/scene.ts';

/** One site of IPv6 alone beside those of IPv4, services of both versions, and terms of each kind. */
export const WORLD: Desired = {
  sites: [
    {
      name: 'cloud',
      sources: ['10.0.0.0/24', '2001:db8::/64'],
      pools: ['10.0.0.128/25', 'fd00::/120'],
      zone: 'cloud.test',
    },
    { name: 'site-a', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'a.test' },
    { name: 'site-b', sources: ['10.0.0.0/24'], pools: ['10.0.0.128/25'], zone: 'b.test' },
    { name: 'site-c', sources: ['2001:db8:c::/64'], pools: ['fd00:c::/120'], zone: 'c.test' },
  ],
  services: [
    ...DESIRED.services,
    { name: 'dns', site: 'cloud', address: '10.0.0.7', ports: ['udp/53', 'ip/47'] },
    { name: 'web', site: 'cloud', address: '2001:db8::5', ports: ['tcp/443', 'sctp/443', 'icmp'] },
  ],
  exposures: [
    { service: 'rabbitmq', site: 'site-a' },
    { service: 'neutron', site: 'site-a', clients: ['10.0.0.0/29'] },
    { service: 'rabbitmq', site: 'site-b', clients: ['10.0.0.0/29'] },
    { service: 'dns', site: 'site-a' },
    { service: 'console-a', site: 'cloud' },
    { service: 'console-a', site: 'site-b' },
    { service: 'web', site: 'site-c' },
    { service: 'rabbitmq', site: 'site-c', clients: ['2001:db8:c::/120'] },
  ],
};

/** A control plane whose edges are all connected, and have acknowledged everything. */
export class DiagnosedScene {
  scene: Scene;
  readonly revoked: Set<string> = new Set();
  readonly offline: Map<string, string> = new Map();
  readonly behind: Set<string> = new Set();

  private constructor(scene: Scene) {
    this.scene = scene;
  }

  static async start(
    desired: unknown = WORLD,
    options: SceneOptions = {}
  ): Promise<DiagnosedScene> {
    return new DiagnosedScene(await startScene(desired, options));
  }

  get world(): ExplainedWorld {
    const { registry, controller, translator, clock } = this.scene;
    return {
      registry,
      lookup: controller.lookup,
      settled: () => controller.settled(),
      snapshot: (site) => controller.snapshot(site),
      isRevoked: (site) => this.revoked.has(site),
      edge: (site): ConnectedEdgeStatus | undefined => {
        const revision = controller.snapshot(site)?.revision ?? 0;
        if (this.offline.has(site)) return undefined;
        const appliedRevision = this.behind.has(site) ? revision - 1 : revision;
        return { sentRevision: revision, appliedRevision, counters: {} };
      },
      tunnel: async (site): Promise<SiteTunnelStatus | undefined> =>
        this.offline.has(site) ? undefined : { connections: 2, rttMs: 1.25 },
      lastFault: (site) => this.offline.get(site),
      explain: async (packet, realm) => translator.real.explain(packet, realm),
      nowMs: () => clock.wallMs(),
    };
  }

  explain(query: ExplainQuery): Promise<FlowExplanation> {
    return explainFlow(this.world, query);
  }

  suspend(site: string, isSuspended: boolean): void {
    if (isSuspended) this.revoked.add(site);
    else this.revoked.delete(site);
    this.scene.controller.suspend(site, isSuspended);
  }

  /** Gives the sender the address that its first packet would bring, as the gateway does. */
  async admit({ before, to, from, stages }: FlowExplanation, family: 4 | 6): Promise<void> {
    if (before === undefined || to === undefined) throw new Error(JSON.stringify(stages));
    await this.scene.controller.admit(from, IpAddress.parse(before.source), to, family);
  }

  async close(): Promise<void> {
    await this.scene.controller.close();
    await this.scene.registry.close();
  }
}
