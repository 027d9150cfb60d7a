/**
 * What a cloud gateway tells the stack of sockets that it has instead of a device, and the backend that reaches the
 * services of the cloud by the sockets of this machine.
 *
 * Snapshots of the cloud's site come a moment after a change. The plan of the translator comes at once, and no packet of
 * a new lease passes before it is loaded. So it is the plan that ends what is not permitted any more, before the address
 * of a client can mean another host.
 * @module
 */
import type { PlanTarget } from '../control/index.ts';
import { isPacketDevice, type PacketDevice } from '../device/index.ts';
import { CLOUD, type DesiredSource } from '../registry/index.ts';
import type { BackendService } from '../sockets/index.ts';
import type { PlanChanges, TranslationPlan } from '../translator/index.ts';
import type { ResolvedCloudOptions } from './cloud-options.ts';
import { CloudPlan, type ReasonOf } from './cloud-plan.ts';
import type { EdgeChange } from './edge-tunnels.ts';
import { GatewaySockets } from './gateway-sockets.ts';
import type { ServiceSettings } from './sockets-options.ts';

/** A device that is not a stack is told nothing. */
export class CloudSockets extends GatewaySockets {
  readonly #desired: CloudDesired;
  /** The names of services whose connections begin with a PROXY protocol header; undefined if that holds for all or none. */
  readonly #withHeader: ReadonlySet<string> | undefined;
  readonly #plan = new CloudPlan();
  /** Whether there are several sites: one that is alone may use all of what they otherwise share out. */
  #isShared = false;
  /** What the backend was told of the exposed services, as a text. */
  #services = '';
  /** How many tunnels each site has; two while a newer one replaces another. */
  readonly #tunnels = new Map<string, number>();

  /**
   * @param option the option `device` that the device was opened with
   * @param desired the desired state
   */
  constructor(
    device: PacketDevice | undefined,
    option: ResolvedCloudOptions['device'],
    desired: CloudDesired
  ) {
    const { proxyProtocol, ...settings } = settingsOf(option);
    super(device, {
      ...settings,
      proxyProtocol: proxyProtocol === true,
      siteOf: (client) => (this.#isShared ? this.#plan.siteOf(client) : undefined),
    });
    this.#desired = desired;
    this.#withHeader = Array.isArray(proxyProtocol) ? new Set(proxyProtocol) : undefined;
    this.#tellReach();
  }

  /** The tunnel of a site came up or went down. Connections to its presences wait while it has none. */
  onEdge({ site, state }: EdgeChange): void {
    const count = (this.#tunnels.get(site) ?? 0) + (state === 'up' ? 1 : -1);
    if (count === 0) this.#tunnels.delete(site);
    else this.#tunnels.set(site, count);
    this.#tellReach();
  }

  /** Returns a target that shows each plan to the stack before `target` has it. */
  before(target: PlanTarget): PlanTarget {
    if (this.optionalStack === undefined) return target;
    return {
      ...(target.planned && { planned: (realm) => target.planned!(realm) }),
      load: (plan) => {
        this.#load(plan);
        target.load(plan);
      },
      apply: (changes) => {
        this.#apply(changes);
        target.apply(changes);
      },
    };
  }

  #tellReach(): void {
    this.optionalStack?.setFailureTo((remote) => {
      const site = this.#plan.siteOf(remote);
      const isDown = site !== undefined && !this.#tunnels.has(site);
      return isDown ? new Error(`the tunnel of ${site} is down`) : undefined;
    });
  }

  #load(plan: TranslationPlan): void {
    this.#end(this.#plan.load(plan));
    this.#countSites();
    this.#tellServices();
  }

  #apply(changes: PlanChanges): void {
    this.#end(this.#plan.apply(changes));
    const { realms = [], permits = [] } = changes;
    if (realms.length > 0) this.#countSites();
    const ofCloud = permits.some(({ service }) => service.realm === CLOUD);
    if (ofCloud || realms.some(({ name }) => name === CLOUD)) this.#tellServices();
  }

  #countSites(): void {
    let count = 0;
    for (const { name } of this.#desired.sites()) {
      if (name !== CLOUD) count++;
      if (count > 1) break;
    }
    this.#isShared = count > 1;
  }

  #tellServices(): void {
    const services = this.#exposedServices();
    const text = services.map(textOf).join(' ');
    if (text === this.#services) return;
    this.#services = text;
    this.backend!.setServices(services);
  }

  #end(reasonOf: ReasonOf | undefined): void {
    if (reasonOf === undefined) return;
    this.backend!.withdrawWhere(reasonOf);
    for (const connection of [...this.stack.tcp.connections()]) {
      const reason = reasonOf('tcp', connection.flow);
      if (reason !== undefined) connection.abort(new Error(reason));
    }
  }

  /** Returns the services of the cloud that are exposed anywhere. The plan says who may reach them. */
  #exposedServices(): readonly BackendService[] {
    const exposed = [...this.#desired.servicesOf(CLOUD)].filter(({ name }) => {
      const [first] = this.#desired.exposuresOf(name);
      return first !== undefined;
    });
    return exposed.map(({ name, address, ports }) => ({
      address,
      ports,
      ...(this.#withHeader?.has(name) && { proxyProtocol: true }),
    }));
  }
}

/** The part of the desired state that is read here. */
export type CloudDesired = Pick<DesiredSource, 'sites' | 'servicesOf' | 'exposuresOf'>;

function textOf({ address, ports, proxyProtocol }: BackendService): string {
  return `${address} ${ports.join()} ${proxyProtocol === true}`;
}

function settingsOf(option: ResolvedCloudOptions['device']): ServiceSettings {
  const isStack = !isPacketDevice(option) && option.type === 'sockets';
  return (isStack && option.backend) || {};
}
