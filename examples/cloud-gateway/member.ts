/**
 * A member: the part of the cloud gateway that carries packets. It has a device, a translator and the
 * tunnels of the sites that it holds; what it knows, it is told. One alone is in the controller's
 * process; several are each in one of their own (`child-member.ts` is how the controller sees these).
 * @module
 */
import {
  CLOUD,
  CloseCode,
  CloudDataPlane,
  type CloudDataPlaneOptions,
  type ConnectionInfo,
  type ControlChannel,
  type Explanation,
  loadUnsentLimit,
  MtlsTunnel,
  type PacketDevice,
  PacketTranslator,
  type PathStatus,
  type PlanTarget,
  type Presence,
  type TranslationPlan,
  type Tunnel,
  type TunnelCredentials,
  type TunnelListener,
  type TunnelRefusal,
  type VerdictCounters,
} from 'virtual-presence';
import type { HostPort } from '../program/fields.ts';
import { type Access, refusalOf } from './access.ts';

/** A member as the controller sees it. What it is told, it does in that order. */
export interface Member extends PlanTarget {
  /** Opens the device, and listens for tunnels. */
  open(): Promise<void>;
  /** Begins to move packets. */
  start(): void;
  /** What `Access` says has changed. */
  refreshAccess(): void;
  /** Resolves when it has done all that it was told. */
  settled(): Promise<void>;
  /** Ends a site's tunnels, and returns how many; nothing passes any more then. */
  cut(site: string, code: string, reason: string): Promise<number>;
  /** Ends a site's tunnels too, but lets what they hold go, and says where to dial instead. */
  handOver(site: string, to: TunnelRefusal): Promise<void>;
  /** Resolves when the connections of the tunnels that were ended are gone. */
  gone(): Promise<void>;
  status(sites: readonly string[]): Promise<MemberStatus>;
  paths(): Promise<readonly PathStatus[]>;
  explain(packet: Uint8Array, realm: string): Promise<Explanation>;
  close(): Promise<void>;
}

export interface MemberStatus {
  readonly pid: number;
  readonly dataPlane: Readonly<Record<string, number>>;
  readonly device: Readonly<Record<string, number>>;
  /** By site. */
  readonly verdicts: Readonly<Record<string, VerdictCounters>>;
}

/** A site's tunnel that is up, as the controller sees it. */
export interface SiteTunnel extends ControlChannel {
  readonly site: string;
  readonly remoteAddress: string;
  readonly cipher: string;
  close(code: string, reason: string): void;
  /** Called once, when it is up no more. */
  onDown: (code: string, reason: string) => void;
}

/** What a member asks and tells the controller. */
export interface MemberHooks {
  readonly admit: CloudDataPlaneOptions['admit'];
  onTunnel(tunnel: SiteTunnel): void;
  log(line: string): void;
}

export interface MemberOptions {
  readonly number: number;
  /** Where member 0 listens; the others do on the ports behind. */
  readonly tunnel: HostPort;
  /** Makes new ones. */
  readonly credentials: () => Promise<TunnelCredentials>;
  readonly access: Access;
  readonly openDevice: () => Promise<PacketDevice>;
}

/** Of this process. */
export class LocalMember implements Member {
  readonly #options: MemberOptions;
  readonly #hooks: MemberHooks;
  readonly #translator = new PacketTranslator();
  #device: PacketDevice | undefined;
  #dataPlane: CloudDataPlane | undefined;
  #listener: TunnelListener | undefined;
  readonly #ending = new Set<Promise<void>>();

  constructor(options: MemberOptions, hooks: MemberHooks) {
    this.#options = options;
    this.#hooks = hooks;
  }

  load(plan: TranslationPlan): void {
    this.#translator.load(plan);
  }

  bind(presence: Presence): void {
    this.#translator.bind(presence);
  }

  async open(): Promise<void> {
    const { number, tunnel, credentials, access, openDevice } = this.#options;
    const { admit, log } = this.#hooks;
    this.#device = await openDevice();
    const device = this.#device;
    this.#dataPlane = new CloudDataPlane({
      cloud: CLOUD,
      device,
      translator: this.#translator,
      admit,
    });
    const limitUnsent = await loadUnsentLimit();
    this.#listener = await MtlsTunnel.listen({
      host: tunnel.host,
      port: tunnel.port + number,
      ...(await credentials()),
      ...(limitUnsent === undefined ? {} : { limitUnsent }),
      authorize: (candidate) => {
        const refusal = refusalOf(candidate, access, number, tunnel.port);
        if (refusal !== undefined) {
          log(`refused ${candidate.remoteAddress}: ${refusal.code}, ${refusal.reason}`);
        }
        return refusal;
      },
    });
    this.#listener.on('tunnel', (accepted) => this.#onTunnel(accepted));
  }

  start(): void {
    this.#dataPlane!.start();
  }

  /** It is asked anew at every handshake. */
  refreshAccess(): void {}

  cut(site: string, code: string, reason: string): Promise<number> {
    const tunnels = this.#tunnelsOf(site);
    for (const tunnel of tunnels) this.#end(tunnel.abort(code, reason));
    return Promise.resolve(tunnels.length);
  }

  handOver(site: string, { code, reason, endpoint }: TunnelRefusal): Promise<void> {
    for (const tunnel of this.#tunnelsOf(site)) this.#end(tunnel.close(code, reason, endpoint));
    return Promise.resolve();
  }

  settled(): Promise<void> {
    return Promise.resolve();
  }

  async gone(): Promise<void> {
    await Promise.all(this.#ending);
  }

  status(sites: readonly string[]): Promise<MemberStatus> {
    const translator = this.#translator;
    return Promise.resolve({
      pid: process.pid,
      dataPlane: { ...this.#dataPlane!.counters },
      device: { ...this.#device!.counters },
      verdicts: Object.fromEntries(
        sites.map((name) => [name, translator.counters(translator.realm(name))])
      ),
    });
  }

  paths(): Promise<readonly PathStatus[]> {
    return Promise.resolve([...this.#translator.paths()]);
  }

  explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    return Promise.resolve(this.#translator.explain(packet, realm));
  }

  async close(): Promise<void> {
    await this.#listener?.close();
    await this.#device?.close();
  }

  #onTunnel(tunnel: Tunnel & { readonly info: ConnectionInfo }): void {
    if (tunnel.peer.role !== 'site') return;
    const { site } = tunnel.peer;
    for (const other of this.#tunnelsOf(site)) {
      if (other === tunnel) continue;
      void other.close(CloseCode.Replaced, 'a newer tunnel of this site is up');
    }
    const detach = this.#dataPlane!.attach(site, tunnel);
    const { remoteAddress, cipher } = tunnel.info;
    const siteTunnel: SiteTunnel = {
      site,
      remoteAddress,
      cipher,
      sendControl: (message) => tunnel.sendControl(message),
      on: (event, listener) => tunnel.on(event, listener),
      off: (event, listener) => tunnel.off(event, listener),
      close: (code, reason) => void tunnel.close(code, reason),
      onDown: () => {},
    };
    this.#hooks.onTunnel(siteTunnel);
    tunnel.on('down', ({ code, reason }) => {
      detach();
      siteTunnel.onDown(code, reason);
    });
  }

  #tunnelsOf(site: string): Tunnel[] {
    return [...(this.#listener?.tunnels ?? [])].filter(
      ({ peer }) => peer.role === 'site' && peer.site === site
    );
  }

  #end(ending: Promise<void>): void {
    const gone = ending.finally(() => this.#ending.delete(gone));
    this.#ending.add(gone);
  }
}
