/**
 * The interface between a worker and its host. A worker is the part of a cloud gateway that carries packets: it has a
 * device, a translator and the tunnels of the sites that it holds. Everything that is passed is plain data (structured
 * clone), so that a worker may run in another process (`rpc.ts`).
 * @module
 */
import type { HostPort } from '../base/host-port.ts';
import type { PresenceUse } from '../control/index.ts';
import type { CloudDataPlaneOptions } from '../dataplane/index.ts';
import type { HistogramSample, LogFields, Logger } from '../observe/index.ts';
import type { Json } from '../store/index.ts';
import type {
  CaptureBatch,
  CaptureFilter,
  Explanation,
  PathPage,
  PathQuery,
  PathStatus,
  PlanChangesInput,
  PlannedRealm,
  TranslationPlanInput,
  VerdictCounters,
} from '../translator/index.ts';
import type {
  AuthorizeAnswer,
  ConnectionInfo,
  Credentials,
  ListenOptions,
  TunnelEpoch,
  TunnelRefusal,
} from '../tunnel/index.ts';
import type { AccessChange } from './access.ts';
import type { Notifications } from './rpc.ts';
import type { TunnelTotals } from './tunnel-traffic.ts';

/**
 * A worker as its host sees it. It processes calls in their order. A method without a result is a notification: the
 * host learns only from `settled` when it is done.
 */
export interface Worker {
  /** Replaces the whole plan, as `PacketTranslator.load` does. */
  load(plan: TranslationPlanInput): void;
  /** Replaces what the changes name in the plan, as `PacketTranslator.apply` does. */
  apply(changes: PlanChangesInput): void;
  /** Returns what there is of a realm, as `PacketTranslator.planned` does. Absent in another process. */
  planned?(realm: string): PlannedRealm | undefined;
  /** Returns the version of the library. The host calls this first, because both must have the same version. */
  version(): string | Promise<string>;
  /**
   * Opens the device, listens for tunnels and begins to move packets. Resolves with where it listens. Before that, the
   * host must send the worker its credentials, its access table and its plan.
   *
   * @throws {PresenceError} if the device or the port cannot be opened; `close` then closes what was opened.
   */
  open(options: WorkerOptions): Promise<WorkerAddresses>;
  /** Changes the access table, from the next handshake on. It is empty at first. */
  updateAccess(change: AccessChange): void;
  /** Replaces the certificate and the trust bundle, from the next connection on. */
  setCredentials(credentials: Credentials): void;
  /**
   * Sends a message to the edge. Returns whether the tunnel has accepted it; a tunnel that is down accepts none.
   *
   * @throws {ApiMisuseError} if the message is longer than a tunnel accepts.
   */
  sendControl(tunnel: number, message: Json): boolean | Promise<boolean>;
  /** Ends tunnels and sends their edges the reason. When it resolves, none of their packets passes. */
  terminate(filter: TunnelFilter, close: TunnelClose): Promise<TerminationReport>;
  /** Resolves when the worker has processed all earlier notifications. */
  settled(): Promise<void>;
  status(sites: readonly string[]): Promise<WorkerStatus>;
  paths(): Promise<readonly PathStatus[]>;
  /** Returns one page of the paths, as `PacketTranslator.pathPage` does. */
  pathPage(query: PathQuery): Promise<PathPage>;
  /** Returns the presences that have carried packets since the last call. */
  presenceUses(): Promise<readonly PresenceUse[]>;
  explain(packet: Uint8Array, realm: string): Promise<Explanation>;
  /** Returns the tunnel of a site; undefined if it is not up. */
  tunnelStatus(site: string): Promise<TunnelStatus | undefined>;
  /**
   * Measures the round-trip time on each connection of a site's tunnel, in ms; `null` for one that has not answered in
   * `timeoutMs`. Undefined if the tunnel is not up.
   */
  measure(site: string, timeoutMs: number): Promise<readonly (number | null)[] | undefined>;
  /**
   * Asks the edge of a site for an answer, as `MtlsTunnel.isAlive` does. False if the site has no tunnel here.
   */
  isAlive(site: string): Promise<boolean>;
  /** Returns what a capture has got since the last call. The first call with a number begins it. */
  takeCapture(capture: number, filter: CaptureFilter): Promise<CaptureBatch>;
  /** Ends a capture and returns what is left of it. */
  endCapture(capture: number): Promise<CaptureBatch>;
  /** Ends the tunnels and closes the device. */
  close(): Promise<void>;
  /**
   * Ends the process of the worker, which is then started again. Returns false if it has ended already. Absent for a worker
   * in the process of its host.
   */
  kill?(): boolean;
}

export const WORKER_NOTIFICATIONS: Notifications<Worker> = {
  load: true,
  apply: true,
  updateAccess: true,
  setCredentials: true,
};

/** The edge of a site that is about to connect: its certificate is verified, and the access table admits it. */
export interface WorkerPeer {
  readonly site: string;
  /** DER. */
  readonly certificate: Uint8Array;
  readonly remoteAddress: string;
  /** The epoch of the last gateway that the edge has taken, as it says; undefined if it names none. */
  readonly lastEpoch: TunnelEpoch | undefined;
}

export type LogLevel = keyof Logger;

/** The host as a worker sees it. */
export interface WorkerHost {
  /**
   * Decides about a connection of an edge, as `ListenOptions.authorize` does. Called after all checks, and only with
   * `WorkerOptions.authorize`.
   */
  authorize(peer: WorkerPeer): AuthorizeAnswer;
  /** Gives a client a presence, as `CloudDataPlaneOptions.admit` says. */
  admit: CloudDataPlaneOptions['admit'];
  /** The tunnel of a site is up. The worker has chosen the number; it is not used again. */
  onTunnel(tunnel: number, details: TunnelDetails): void;
  /** A control message of the edge. */
  onControl(tunnel: number, message: Json): void;
  /** The edge presents another certificate, DER. */
  onRenewed(tunnel: number, certificate: Uint8Array): void;
  /** The tunnel is down. */
  onDown(tunnel: number, code: string, reason: string): void;
  /** A connection was refused. */
  onRefused(refusal: RefusedPeer): void;
  /** One line for the operator's log. */
  log(level: LogLevel, fields: LogFields, message: string): void;
}

export const HOST_NOTIFICATIONS: Notifications<WorkerHost> = {
  onTunnel: true,
  onControl: true,
  onRenewed: true,
  onDown: true,
  onRefused: true,
  log: true,
};

/** The limits of connections to a tunnel port, which `ListenOptions` explains. */
export type ConnectionLimits = Pick<
  ListenOptions,
  'maxHandshakes' | 'maxConnectionRate' | 'maxTunnelRate' | 'maxTunnelBurst'
>;

export interface WorkerOptions {
  /** The worker's number, from 0. */
  readonly number: number;
  /** Where the worker listens for tunnels; port 0 takes a free one. */
  readonly tunnel: HostPort;
  readonly limits: ConnectionLimits;
  /** Whether the worker calls `WorkerHost.authorize`. */
  readonly authorize: boolean;
  /** The TUN that a worker in another process opens; absent for a worker that receives an open device. */
  readonly tun?: { readonly name: string; readonly mtu: number };
}

/** Where a worker listens, with the actual ports. */
export interface WorkerAddresses {
  readonly tunnel: HostPort;
  /** Where a UDP device receives; absent for other devices. */
  readonly device?: HostPort;
}

/** A site's tunnel that is up. */
export interface TunnelDetails
  extends Pick<ConnectionInfo, 'remoteAddress' | 'cipher' | 'keyExchange'> {
  readonly site: string;
  /** The certificate that the edge presents, DER. */
  readonly certificate: Uint8Array;
}

/** How a site's tunnel is doing. */
export interface TunnelStatus {
  /** How many connections carry packets. */
  readonly connections: number;
  /** The round-trip time that the keepalive has measured last, in ms. */
  readonly rttMs: number | undefined;
}

/**
 * Selects tunnels: those of a site; one, by its number; or every tunnel and every handshake in progress whose
 * certificate is revoked or was issued by a retired CA, according to the last access table.
 */
export type TunnelFilter =
  | { readonly site: string }
  | { readonly tunnel: number }
  | { readonly unwanted: true };

/** The reason that the edge receives; `endpoint` or `endpoints` redirect it. */
export interface TunnelClose extends TunnelRefusal {
  /**
   * Whether packets that the tunnel holds are sent before it ends; default false, which drops them. The tunnels of
   * `unwanted` are never drained.
   */
  readonly drain?: boolean;
}

/** What `terminate` has ended. */
export interface TerminationReport {
  readonly tunnelsClosed: number;
  /**
   * Paths of the translator that were removed because their site left the plan, since the last call for `unwanted`
   * tunnels; 0 for other calls.
   */
  readonly pathsRemoved: number;
}

export interface WorkerStatus {
  /** 0 while the worker is down. */
  readonly pid: number;
  /** The counters of the port where edges connect: connections and refusals. */
  readonly listener: Readonly<Record<string, number>>;
  readonly dataPlane: Readonly<Record<string, number>>;
  readonly device: Readonly<Record<string, number>>;
  /** The verdict counters by site. */
  readonly verdicts: Readonly<Record<string, VerdictCounters>>;
  /** What else is known of each site. */
  readonly traffic: Readonly<Record<string, SiteTraffic>>;
  /** How late the event loop of the worker is, measured since the first call; absent while the worker is down. */
  readonly eventLoopDelay?: HistogramSample;
}

/** The traffic of one site at a worker. Counters are cumulative. */
export interface SiteTraffic extends TunnelTotals {
  /** The bytes of the site's packets that the translator has forwarded, before translation. */
  readonly forwardedBytes: number;
  /** How many packets of the site wait until their clients have a presence. */
  readonly pendingPackets: number;
  /** How many connections carry packets; 0 if the worker has no tunnel of the site. */
  readonly connections: number;
  /** The round-trip time that was measured last, in ms; undefined if the worker has no tunnel of the site. */
  readonly rttMs: number | undefined;
}

/** A connection that was refused; `site` and `serial` are known only if its certificate was verified. */
export interface RefusedPeer {
  readonly remoteAddress: string;
  readonly code: string;
  readonly reason: string;
  readonly site?: string | undefined;
  readonly serial?: string | undefined;
}
