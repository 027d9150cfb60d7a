/**
 * All members together: one in this process, or several in their own with the sites shared out among
 * them. Then each has a TUN, a port and a part of the plan, and the kernel's routes lead to the TUNs.
 * @module
 */
import {
  CLOUD,
  type CutReport,
  configureTun,
  type Explanation,
  forgetRoutes,
  type ListenOptions,
  type PacketDevice,
  type PathStatus,
  PlanPartition,
  type PlanTarget,
  type Presence,
  type PresenceUse,
  type TranslationPlan,
  type TunnelCredentials,
  type TunSetup,
} from 'virtual-presence';
import { lackOfLan, lanOf, type TunConfig } from '../program/device.ts';
import type { HostPort } from '../program/fields.ts';
import { type Access, type AccessTable, movedTo } from './access.ts';
import { ChildMember } from './child-member.ts';
import type { CloudConfig } from './config.ts';
import { KernelRoutes } from './kernel-routes.ts';
import { LocalMember, type Member, type MemberAddresses, type MemberHooks } from './member.ts';
import type { Placement } from './placement.ts';

export interface MembersOptions {
  readonly config: CloudConfig;
  /** What all members show, and whom they trust. */
  readonly credentials: () => TunnelCredentials;
  /** What else the tunnel port serves, of one process. */
  readonly otherProtocols?: ListenOptions['otherProtocols'];
  readonly access: () => Access;
  readonly accessTable: () => AccessTable;
  readonly placement: Placement;
  /** For the one member of this process. */
  readonly openDevice: () => Promise<PacketDevice>;
}

export interface MembersStatus {
  /** Sums over all of them. */
  readonly listener: Readonly<Record<string, number>>;
  readonly dataPlane: Readonly<Record<string, number>>;
  readonly device: Readonly<Record<string, number>>;
  /** By site. */
  readonly verdicts: Readonly<Record<string, Readonly<Record<string, number>>>>;
  readonly processes: readonly { readonly pid: number; readonly sites: readonly string[] }[];
}

/** The controller's plan goes to it; packets never come here. */
export class Members implements PlanTarget {
  readonly #options: MembersOptions;
  readonly #list: readonly Member[];
  /** Absent: one member, which has the whole plan. */
  readonly #partition: PlanPartition | undefined;
  readonly #routes: KernelRoutes;
  readonly #log: (line: string) => void;
  #setup: TunSetup | undefined;
  /** Where each member listens. The entry of a member is absent until it is open. */
  readonly #addresses: MemberAddresses[] = [];
  /** What members have said while others could not, by realm and address. */
  readonly #uses = new Map<string, PresenceUse>();
  #moves: Promise<void> = Promise.resolve();
  /** The restarts that are being dealt with. */
  #restarts: Promise<void> = Promise.resolve();
  #isClosing = false;

  constructor(options: MembersOptions, hooks: MemberHooks) {
    this.#options = options;
    this.#log = hooks.log;
    const { config, placement, access, openDevice } = options;
    this.#routes = new KernelRoutes({
      deviceOf: (site) => this.#deviceName(placement.holderOf(site)),
      log: hooks.log,
    });
    if (config.processes === undefined || config.processes === 1) {
      const { limits = {} } = config;
      const { credentials, otherProtocols } = options;
      const tunnel = this.#tunnelAddress(0);
      const member = { number: 0, tunnel, limits, otherProtocols, credentials, access, openDevice };
      this.#list = [new LocalMember(member, hooks)];
      return;
    }
    const admit: MemberHooks['admit'] = async (...client) => {
      await hooks.admit(...client);
      await this.#routes.sync();
    };
    this.#list = Array.from({ length: config.processes }, (_, number) =>
      this.#newChild(number, { ...hooks, admit })
    );
    this.#partition = new PlanPartition({
      shared: CLOUD,
      targets: this.#list,
      holderOf: (site) => placement.holderOf(site),
      onRoutes: (changes) => this.#routes.take(changes),
    });
  }

  /** The realm that packets between sites may cross. */
  get transit(): string | undefined {
    return this.#partition && CLOUD;
  }

  load(plan: TranslationPlan): void {
    (this.#partition ?? this.#list[0]!).load(plan);
  }

  bind(presence: Presence): void {
    (this.#partition ?? this.#list[0]!).bind(presence);
  }

  /** Where each member listens; without those that are not open yet. */
  get addresses(): readonly MemberAddresses[] {
    return this.#addresses;
  }

  /** The port where a member listens for tunnels; undefined while it is yet to take a free one. */
  portOf(member: number): number | undefined {
    const { port } = this.#addresses[member]?.tunnel ?? this.#tunnelAddress(member);
    return port === 0 ? undefined : port;
  }

  /** The same for all members, without those whose port is not known yet. */
  get ports(): ReadonlyMap<number, number> {
    const ports = new Map<number, number>();
    for (const member of this.#list.keys()) {
      const port = this.portOf(member);
      if (port !== undefined) ports.set(member, port);
    }
    return ports;
  }

  /** Opens devices and ports. */
  async open(): Promise<void> {
    const { device } = this.#options.config;
    if (device.type === 'tun') {
      // Of a gateway of this place that was killed.
      for (const prefix of device.routes) await forgetRoutes(prefix);
    }
    const openings = await Promise.allSettled(
      this.#list.map(async (member, number) => {
        this.#addresses[number] = await member.open();
      })
    );
    for (const opening of openings) {
      if (opening.status === 'rejected') throw opening.reason;
    }
    // Where each of them listens is news to the others if they took free ports.
    this.refreshAccess();
    if (this.#partition === undefined || device.type !== 'tun') return;
    for (const problem of [...(await this.#configure(device)), ...lackOfLan(device)]) {
      this.#log(`device: ${problem}`);
    }
    await this.#routes.open();
  }

  /** Begins to move packets. */
  start(): void {
    for (const member of this.#list) member.start();
  }

  refreshAccess(): void {
    for (const member of this.#list) member.refreshAccess();
  }

  setCredentials(credentials: TunnelCredentials): void {
    for (const member of this.#list) member.setCredentials(credentials);
  }

  /** Ends a site's tunnels, wherever they are; nothing passes any more then. */
  async cut(site: string, code: string, reason: string): Promise<void> {
    await Promise.all(this.#list.map((member) => member.cut(site, code, reason)));
  }

  /** Ends all tunnels whose certificate is revoked, or its CA retired, by now; nothing passes any more then. */
  async cutRevoked(code: string, reason: string): Promise<CutReport> {
    this.refreshAccess();
    const cuts = await Promise.all(this.#list.map((member) => member.cutRevoked(code, reason)));
    return {
      tunnelsClosed: cuts.reduce((total, { tunnelsClosed }) => total + tunnelsClosed, 0),
      pathsRemoved: cuts.reduce((total, { pathsRemoved }) => total + pathsRemoved, 0),
    };
  }

  /** Resolves when the connections of the tunnels that were ended are gone. */
  async gone(): Promise<void> {
    await Promise.all(this.#list.map((member) => member.gone()));
  }

  /** Gives a site to another member. Its addresses stay, so its connections go on. */
  move(site: string, to: number): Promise<void> {
    const moving = this.#moves.then(() => this.#move(site, to));
    this.#moves = moving.catch(() => {});
    return moving;
  }

  async status(sites: readonly string[]): Promise<MembersStatus> {
    const held = this.#options.placement.sites();
    const all = await Promise.all(this.#list.map((member) => member.status(sites)));
    return {
      listener: sum(all.map(({ listener }) => listener)),
      dataPlane: sum(all.map(({ dataPlane }) => dataPlane)),
      device: sum(all.map(({ device }) => device)),
      verdicts: Object.fromEntries(
        sites.map((site) => [site, sum(all.map(({ verdicts }) => verdicts[site] ?? {}))])
      ),
      processes: all.map(({ pid }, i) => ({ pid, sites: held[i]! })),
    };
  }

  async paths(): Promise<readonly PathStatus[]> {
    return (await Promise.all(this.#list.map((member) => member.paths()))).flat();
  }

  /**
   * Which presences have carried packets since this was last answered.
   *
   * @throws {EnvironmentError} if a member is down; what the others have said comes with the next answer.
   */
  async presenceUses(): Promise<readonly PresenceUse[]> {
    const answers = await Promise.allSettled(this.#list.map((member) => member.presenceUses()));
    for (const answer of answers) {
      if (answer.status === 'rejected') continue;
      for (const use of answer.value) this.#uses.set(`${use.realm} ${use.address}`, use);
    }
    const failure = answers.find((answer) => answer.status === 'rejected');
    if (failure !== undefined) throw failure.reason;
    const uses = [...this.#uses.values()];
    this.#uses.clear();
    return uses;
  }

  /** Asks the member that a packet of this realm comes to. */
  async explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    if (realm !== CLOUD) {
      return this.#list[this.#options.placement.holderOf(realm)]!.explain(packet, realm);
    }
    const all = await Promise.all(this.#list.map((member) => member.explain(packet, realm)));
    return all.find(({ step }) => step !== 'destination') ?? all[0]!;
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    await this.#moves;
    await this.#restarts;
    await this.#routes.close();
    await Promise.all(this.#list.map((member) => member.close()));
    const { device } = this.#options.config;
    if (this.#partition === undefined || device.type !== 'tun') return;
    try {
      await this.#setup?.close();
    } finally {
      for (const prefix of device.routes) await forgetRoutes(prefix);
    }
  }

  /**
   * A member is back. It may listen elsewhere, which the others must know, and its interface may have been made
   * anew, without settings and routes.
   */
  async #restarted(number: number, addresses: MemberAddresses): Promise<void> {
    // What is set after the last close stays on the machine.
    if (this.#isClosing) return;
    this.#addresses[number] = addresses;
    this.refreshAccess();
    const { device } = this.#options.config;
    try {
      if (device.type === 'tun') await this.#configure(device);
    } catch (error) {
      this.#log(`device: ${(error as Error).message}`);
    }
    this.#routes.forget(this.#deviceName(number));
  }

  /** Returns what the machine lacks, one sentence each. */
  async #configure(device: TunConfig): Promise<readonly string[]> {
    const [name, ...otherTuns] = this.#list.map((_, number) => this.#deviceName(number));
    this.#setup = await configureTun({
      name: name!,
      otherTuns,
      routes: [],
      unreachable: device.routes,
      proxyArp: device.proxyArp,
      ...lanOf(device),
      onProblem: (problem) => this.#log(`device: ${problem}`),
    });
    return this.#setup.problems;
  }

  #newChild(number: number, hooks: MemberHooks): ChildMember {
    const { config, credentials, accessTable } = this.#options;
    const { mtu } = config.device;
    const name = this.#deviceName(number);
    return new ChildMember(
      {
        number,
        device: { name, mtu },
        tunnel: this.#tunnelAddress(number),
        limits: config.limits ?? {},
        credentials,
        plan: () => this.#partition!.part(number),
        access: accessTable,
        onRestart: (addresses) => {
          this.#restarts = this.#restarts.then(() => this.#restarted(number, addresses));
        },
      },
      hooks
    );
  }

  /** Where a member is to listen: on the configured port plus its number, or on a free port if that is 0. */
  #tunnelAddress(member: number): HostPort {
    const { host, port } = this.#options.config.tunnel;
    return { host, port: port === 0 ? 0 : port + member };
  }

  /** The configured name for member 0; the number at its end counted up for the others. */
  #deviceName(member: number): string {
    const { device } = this.#options.config;
    const [, stem, first] = /^(.*?)(\d*)$/.exec(device.type === 'tun' ? device.name : '')!;
    return member === 0 ? `${stem}${first}` : `${stem}${Number(first) + member}`;
  }

  /**
   * In this order, so that no packet of the site ever comes to one that would answer it with a refusal:
   * the new member knows the site, the kernel brings its packets there, its edge dials there, the others
   * learn of it. What is on the way meanwhile is dropped silently.
   */
  async #move(site: string, to: number): Promise<void> {
    const { placement } = this.#options;
    const from = placement.holderOf(site);
    if (from === to || this.#partition === undefined) return;
    placement.move(site, to);
    this.#partition.reload(to);
    this.refreshAccess();
    await this.#list[to]!.settled();
    await this.#routes.sync();
    await this.#list[from]!.handOver(site, movedTo(site, to, this.portOf(to)));
    for (const other of this.#list.keys()) {
      if (other !== to) this.#partition.reload(other);
    }
  }
}

function sum(counters: readonly Readonly<Record<string, number>>[]): Record<string, number> {
  const sums: Record<string, number> = {};
  for (const each of counters) {
    for (const [name, count] of Object.entries(each)) sums[name] = (sums[name] ?? 0) + count;
  }
  return sums;
}
