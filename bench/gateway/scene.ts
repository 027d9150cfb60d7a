/**
 * The networks of every contender, and their congestion control:
 *
 * ```
 *   client ---- edge gateway ==== wan ==== cloud gateway ---- service
 *     .5   lan0 .1  198.51.100.11   198.51.100.1    .1 lan0     .5
 * ```
 *
 * Each host is a network namespace, each cable a veth pair with an MTU of 1500 and the kernel's
 * offloads.
 * @module
 */
import { type Host, Network } from '../../test/support/network.ts';

/** Connects the two gateways; they must have the addresses `EDGE_WAN` and `CLOUD_WAN` afterwards. */
export type Wan = (network: Network, edge: Host, cloud: Host) => Promise<void>;

/** First three bytes of the two LANs: one address plan for all, or two that can be routed. */
export type AddressPlan = 'same' | 'different';

export interface Lan {
  readonly prefix: string;
  readonly gateway: string;
  readonly host: string;
}

export interface SceneOptions {
  /** The directory for files of this scene; its owner removes it. */
  readonly directory: string;
  readonly plan: AddressPlan;
  /** Congestion control of TCP on all hosts, as the kernel calls it. */
  readonly congestion: string;
  /** One cable by default. */
  readonly wan?: Wan;
}

export class Scene {
  readonly network: Network;
  readonly directory: string;
  readonly client: Host;
  readonly edge: Host;
  readonly cloud: Host;
  readonly service: Host;
  readonly clientLan: Lan;
  readonly serviceLan: Lan;
  readonly #congestion: string;

  private constructor(
    network: Network,
    { directory, plan, congestion }: SceneOptions,
    [client, edge, cloud, service]: readonly Host[]
  ) {
    this.network = network;
    this.directory = directory;
    this.client = client!;
    this.edge = edge!;
    this.cloud = cloud!;
    this.service = service!;
    this.#congestion = congestion;
    this.clientLan = lan(plan === 'same' ? '10.0.0' : '10.1.0');
    this.serviceLan = lan(plan === 'same' ? '10.0.0' : '10.2.0');
  }

  /** Builds the networks again, so that nothing of an earlier contender is left. */
  static async create(options: SceneOptions): Promise<Scene> {
    const network = await Network.create(options.directory);
    try {
      const hosts = [
        // The gateway's address in its LAN, whatever the plan.
        await network.newHost('client', lan(options.plan === 'same' ? '10.0.0' : '10.1.0').gateway),
        await network.newHost('edge', undefined),
        await network.newHost('cloud', undefined),
        await network.newHost('service', undefined),
      ];
      const scene = new Scene(network, options, hosts);
      const { client, edge, cloud, service } = scene;
      await connectLan(network, client, edge, scene.clientLan);
      await connectLan(network, service, cloud, scene.serviceLan);
      await (options.wan ?? cable)(network, edge, cloud);
      await scene.settle();
      return scene;
    } catch (error) {
      await network.close();
      throw error;
    }
  }

  /**
   * Sets the congestion control of all current routes. Call it again when there are new ones. (A namespace may
   * not choose a default that the machine does not allow to everybody.)
   */
  async settle(): Promise<void> {
    const script = ['-4', '-6'].map(
      (family) => `
        routes=$(ip ${family} route show | grep -v -e congctl -e '^fe80' -e '^multicast' || true)
        echo "$routes" | while read -r route; do
          test -z "$route" || ip ${family} route change $route congctl ${this.#congestion}
        done
      `
    );
    const { client, edge, cloud, service } = this;
    await Promise.all([client, edge, cloud, service].map((host) => host.sh(script.join('\n'))));
  }

  /** Ends every program of the scene. */
  close(): Promise<void> {
    return this.network.close();
  }
}

/** The default wan: one veth pair. */
export const cable: Wan = async (network, edge, cloud) => {
  await network.cable(edge, 'wan0', cloud, 'wan0');
  await edge.sh(`ip address add ${EDGE_WAN}/24 dev wan0`);
  await cloud.sh(`ip address add ${CLOUD_WAN}/24 dev wan0`);
};

function lan(prefix: string): Lan {
  return { prefix: `${prefix}.0/24`, gateway: `${prefix}.1`, host: `${prefix}.5` };
}

async function connectLan(network: Network, host: Host, gateway: Host, plan: Lan): Promise<void> {
  await network.cable(host, 'eth0', gateway, 'lan0');
  await gateway.sh(`ip address add ${plan.gateway}/24 dev lan0`);
  await host.sh(`
    ip address add ${plan.host}/24 dev eth0
    ip route add default via ${plan.gateway}
  `);
}

export const EDGE_WAN = '198.51.100.11';
export const CLOUD_WAN = '198.51.100.1';
