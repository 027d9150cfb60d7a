/**
 * A member: the part of the cloud gateway that carries packets. It has a device, a translator and the
 * tunnels of the sites that it holds; what it knows, it is told. One alone is in the controller's
 * process; several are each in one of their own (`child-member.ts` is how the controller sees these).
 * @module
 */
import type { X509Certificate } from 'node:crypto';
import {
  CLOUD,
  CloseCode,
  CloudDataPlane,
  type CloudDataPlaneOptions,
  type ConnectionInfo,
  type ControlChannel,
  type CutReport,
  type Explanation,
  type KeyExchangeGroup,
  type ListenOptions,
  loadUnsentLimit,
  MtlsTunnel,
  type PacketDevice,
  PacketTranslator,
  type PathStatus,
  type PlanTarget,
  type Presence,
  type PresenceUse,
  PresenceUses,
  type TranslationPlan,
  type Tunnel,
  type TunnelCredentials,
  type TunnelListener,
  type TunnelRefusal,
  type VerdictCounters,
} from 'virtual-presence';
import type { HostPort } from '../program/fields.ts';
import { deviceAddress } from '../program/listening.ts';
import { type Access, refusalOf } from './access.ts';
import type { ConnectionLimits } from './config.ts';

/** A member as the controller sees it. What it is told, it does in that order. */
export interface Member extends PlanTarget {
  /** Opens the device, and listens for tunnels. Resolves with where it does. */
  open(): Promise<MemberAddresses>;
  /** Begins to move packets. */
  start(): void;
  /** What `Access` says has changed. */
  refreshAccess(): void;
  /** Resolves when it has done all that it was told. */
  settled(): Promise<void>;
  /** Shows another certificate, and trusts others, from the next connection on. */
  setCredentials(credentials: TunnelCredentials): void;
  /** Ends a site's tunnels; nothing passes any more then. */
  cut(site: string, code: string, reason: string): Promise<void>;
  /** Ends all tunnels whose certificate is revoked, or its CA retired, by now; nothing passes any more then. */
  cutRevoked(code: string, reason: string): Promise<CutReport>;
  /** Ends a site's tunnels too, but lets what they hold go, and says where to dial instead. */
  handOver(site: string, to: TunnelRefusal): Promise<void>;
  /** Resolves when the connections of the tunnels that were ended are gone. */
  gone(): Promise<void>;
  status(sites: readonly string[]): Promise<MemberStatus>;
  paths(): Promise<readonly PathStatus[]>;
  /** Which presences have carried packets since the last call. */
  presenceUses(): Promise<readonly PresenceUse[]>;
  explain(packet: Uint8Array, realm: string): Promise<Explanation>;
  close(): Promise<void>;
}

/** Where a member listens, with the ports that it has taken. */
export interface MemberAddresses {
  readonly tunnel: HostPort;
  /** Where a UDP device receives; absent for other devices. */
  readonly device?: HostPort;
}

export interface MemberStatus {
  readonly pid: number;
  /** Of the port where edges connect: what came, and what was refused. */
  readonly listener: Readonly<Record<string, number>>;
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
  /** As the edge says; undefined if it says nothing. */
  readonly keyExchange: KeyExchangeGroup | undefined;
  /** What the edge shows now. */
  readonly certificate: X509Certificate;
  close(code: string, reason: string): void;
  /** Called when it shows another certificate. */
  onRenewed: () => void;
  /** Called once, when it is up no more. */
  onDown: (code: string, reason: string) => void;
}

/** What a member asks and tells the controller. */
export interface MemberHooks {
  readonly admit: CloudDataPlaneOptions['admit'];
  onTunnel(tunnel: SiteTunnel): void;
  /** A connection has led to no tunnel. */
  onRefused(refusal: RefusedPeer): void;
  log(line: string): void;
}

/** A connection that has led to no tunnel; who it was is known only if its certificate was verified. */
export interface RefusedPeer {
  readonly remoteAddress: string;
  readonly code: string;
  readonly reason: string;
  readonly site?: string | undefined;
  readonly serial?: string | undefined;
}

export interface MemberOptions {
  readonly number: number;
  /** Where this member listens; port 0 takes a free one. */
  readonly tunnel: HostPort;
  readonly limits: ConnectionLimits;
  readonly otherProtocols?: ListenOptions['otherProtocols'];
  readonly credentials: () => TunnelCredentials;
  /** What is known now. */
  readonly access: () => Access;
  readonly openDevice: () => Promise<PacketDevice>;
}

/** Of this process. */
export class LocalMember implements Member {
  readonly #options: MemberOptions;
  readonly #hooks: MemberHooks;
  readonly #translator = new PacketTranslator();
  readonly #uses = new PresenceUses(() => this.#translator.paths());
  #device: PacketDevice | undefined;
  #dataPlane: CloudDataPlane | undefined;
  #listener: TunnelListener | undefined;
  readonly #ending = new Set<Promise<void>>();
  /** Paths that were left when a site went out of the plan, since the last cut. */
  #pathsRemoved = 0;

  constructor(options: MemberOptions, hooks: MemberHooks) {
    this.#options = options;
    this.#hooks = hooks;
  }

  load(plan: TranslationPlan): void {
    this.#pathsRemoved += this.#translator.load(plan);
  }

  bind(presence: Presence): void {
    this.#translator.bind(presence);
  }

  async open(): Promise<MemberAddresses> {
    const { number, tunnel, limits, otherProtocols, credentials, access, openDevice } =
      this.#options;
    const { admit, onRefused } = this.#hooks;
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
      ...tunnel,
      ...credentials(),
      ...limits,
      otherProtocols,
      ...(limitUnsent === undefined ? {} : { limitUnsent }),
      authorize: (candidate) => refusalOf(candidate, access(), number),
      onRefused: ({ remoteAddress, code, reason, identity, serial }) => {
        const site = identity?.role === 'site' ? identity.site : undefined;
        onRefused({ remoteAddress, code, reason, site, serial });
      },
    });
    this.#listener.on('tunnel', (accepted) => this.#onTunnel(accepted));
    // They may have changed while all of that was opened.
    this.#listener.updateCredentials(credentials());
    return { tunnel: { host: tunnel.host, port: this.#listener.port }, ...deviceAddress(device) };
  }

  start(): void {
    this.#dataPlane!.start();
  }

  /** It is asked anew at every handshake. */
  refreshAccess(): void {}

  setCredentials(credentials: TunnelCredentials): void {
    this.#listener?.updateCredentials(credentials);
  }

  cut(site: string, code: string, reason: string): Promise<void> {
    for (const tunnel of this.#tunnelsOf(site)) this.#end(tunnel.abort(code, reason));
    return Promise.resolve();
  }

  cutRevoked(code: string, reason: string): Promise<CutReport> {
    const access = this.#options.access();
    const isMeant = (certificate: X509Certificate) =>
      access.isRevoked(certificate) || access.isRetired(certificate);
    const tunnelsClosed = this.#listener?.cut(isMeant, code, reason) ?? 0;
    const pathsRemoved = this.#pathsRemoved;
    this.#pathsRemoved = 0;
    return Promise.resolve({ tunnelsClosed, pathsRemoved });
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
      listener: countersOf(this.#listener!),
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

  presenceUses(): Promise<readonly PresenceUse[]> {
    return this.#uses.since();
  }

  explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    return Promise.resolve(this.#translator.explain(packet, realm));
  }

  async close(): Promise<void> {
    await this.#listener?.close();
    await this.#device?.close();
  }

  #onTunnel(tunnel: Tunnel & { readonly info: ConnectionInfo }): void {
    const { peer, remoteAddress, cipher, keyExchange } = tunnel.info;
    if (peer.role !== 'site') return;
    const { site } = peer;
    for (const other of this.#tunnelsOf(site)) {
      if (other === tunnel) continue;
      void other.close(CloseCode.Replaced, 'a newer tunnel of this site is up');
    }
    const detach = this.#dataPlane!.attach(site, tunnel);
    const siteTunnel: SiteTunnel = {
      site,
      remoteAddress,
      cipher,
      keyExchange,
      get certificate() {
        return tunnel.info.certificate;
      },
      sendControl: (message) => tunnel.sendControl(message),
      on: (event, listener) => tunnel.on(event, listener),
      off: (event, listener) => tunnel.off(event, listener),
      close: (code, reason) => void tunnel.close(code, reason),
      onRenewed: () => {},
      onDown: () => {},
    };
    tunnel.on('renewed', () => siteTunnel.onRenewed());
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

/** Those that are not zero; refusals by their code. */
function countersOf({ counters }: TunnelListener): Record<string, number> {
  const named: Record<string, number> = {};
  for (const [name, count] of Object.entries(counters)) {
    if (typeof count === 'number') named[name] = count;
    else for (const [code, times] of count as Map<string, number>) named[`${name}.${code}`] = times;
  }
  return named;
}
