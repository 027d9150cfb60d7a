/**
 * What a worker is: the part of a cloud gateway that carries packets. It has a device, a translator and the
 * tunnels of the sites that it holds, and it knows what it is told. Everything that is passed here is plain data
 * (structured clone), so that a worker may be in another process (`rpc.ts`).
 * @module
 */

import type { HostPort } from '../base/host-port.ts';
import type { PresenceUse } from '../control/index.ts';
import type { CloudDataPlaneOptions } from '../dataplane/index.ts';
import type { LogFields, Logger } from '../observe/index.ts';
import type { Json } from '../store/index.ts';
import type {
  Explanation,
  PathStatus,
  PresenceInput,
  TranslationPlanInput,
  VerdictCounters,
} from '../translator/index.ts';
import type { ConnectionInfo, Credentials, ListenOptions, TunnelRefusal } from '../tunnel/index.ts';
import type { AccessTable } from './access.ts';
import type { Notifications } from './rpc.ts';

/**
 * A worker as its host sees it. It does what it is told in that order. A method without a result is a
 * notification: the host does not learn when it is done, except by `settled`.
 */
export interface Worker {
  /** Replaces the plan as a whole, as `PacketTranslator.load` does. */
  load(plan: TranslationPlanInput): void;
  /** Adds a presence to the plan, as `PacketTranslator.bind` does. */
  bind(presence: PresenceInput): void;
  /** Of the library that the worker is a part of. The host asks for it first: both must be of one version. */
  version(): string | Promise<string>;
  /**
   * Opens the device, listens for tunnels and begins to move packets. Resolves with where it listens. The host has
   * told the worker its credentials, its access table and its plan before.
   *
   * @throws {PresenceError} if the device or the port cannot be had; `close` then closes what was opened.
   */
  open(options: WorkerOptions): Promise<WorkerAddresses>;
  /** Who may come up from the next handshake on. */
  setAccess(table: AccessTable): void;
  /** The worker shows another certificate, and trusts others, from the next connection on. */
  setCredentials(credentials: Credentials): void;
  /**
   * Sends a message to the edge. Resolves with whether the tunnel has taken it; a tunnel that is not up takes none.
   *
   * @throws {ApiMisuseError} if the message is longer than a tunnel takes.
   */
  sendControl(tunnel: number, message: Json): boolean | Promise<boolean>;
  /** Ends tunnels and tells their edges why. Nothing of them passes any more when it resolves. */
  terminate(filter: TunnelFilter, close: TunnelClose): Promise<TerminationReport>;
  /** Resolves when the worker has done everything that it was told before. */
  settled(): Promise<void>;
  status(sites: readonly string[]): Promise<WorkerStatus>;
  paths(): Promise<readonly PathStatus[]>;
  /** The presences that have carried packets since the last call. */
  presenceUses(): Promise<readonly PresenceUse[]>;
  explain(packet: Uint8Array, realm: string): Promise<Explanation>;
  /** Ends the tunnels and closes the device. */
  close(): Promise<void>;
}

export const WORKER_NOTIFICATIONS: Notifications<Worker> = {
  load: true,
  bind: true,
  setAccess: true,
  setCredentials: true,
};

/** The edge of a site that is about to come up: its certificate is verified, and the access table lets it in. */
export interface WorkerPeer {
  readonly site: string;
  /** DER. */
  readonly certificate: Uint8Array;
  readonly remoteAddress: string;
}

export type LogLevel = keyof Logger;

/** What a worker asks and tells its host. */
export interface WorkerHost {
  /** Whether an edge may come up; undefined lets it. Asked last, and only if `WorkerOptions.authorize` says so. */
  authorize(peer: WorkerPeer): TunnelRefusal | undefined | Promise<TunnelRefusal | undefined>;
  /** Gives a client a presence, as `CloudDataPlaneOptions.admit` says. */
  admit: CloudDataPlaneOptions['admit'];
  /** The tunnel of a site is up. The worker has chosen the number; it is not used again. */
  onTunnel(tunnel: number, details: TunnelDetails): void;
  /** A control message of the edge. */
  onControl(tunnel: number, message: Json): void;
  /** The edge shows another certificate, DER. */
  onRenewed(tunnel: number, certificate: Uint8Array): void;
  /** The tunnel is up no more. */
  onDown(tunnel: number, code: string, reason: string): void;
  /** A connection has led to no tunnel. */
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

/** The limits of connections to a tunnel port that a host may set; `ListenOptions` says what they are. */
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
  /** Whether the host is to be asked about every edge that is about to come up. */
  readonly authorize: boolean;
  /** The TUN that a worker in another process opens; absent for a worker that is given its device. */
  readonly tun?: { readonly name: string; readonly mtu: number };
}

/** Where a worker listens, with the ports that it has taken. */
export interface WorkerAddresses {
  readonly tunnel: HostPort;
  /** Where a UDP device receives; absent for other devices. */
  readonly device?: HostPort;
}

/** A site's tunnel that has come up. */
export interface TunnelDetails
  extends Pick<ConnectionInfo, 'remoteAddress' | 'cipher' | 'keyExchange'> {
  readonly site: string;
  /** The certificate that the edge shows, DER. */
  readonly certificate: Uint8Array;
}

/**
 * Which tunnels are meant: those of a site; one, by its number; or every tunnel, and every handshake under way,
 * whose certificate is revoked or is by a retired CA, as the last `setAccess` says.
 */
export type TunnelFilter =
  | { readonly site: string }
  | { readonly tunnel: number }
  | { readonly unwanted: true };

/** What the edge is told; `endpoint` says where it is to dial instead. */
export interface TunnelClose extends TunnelRefusal {
  /**
   * Whether packets that the tunnel holds are sent before it ends; false by default, which drops them. The tunnels
   * of `unwanted` are never drained.
   */
  readonly drain?: boolean;
}

/** What `terminate` has ended. */
export interface TerminationReport {
  readonly tunnelsClosed: number;
  /**
   * Paths of the translator that were left when a site went out of the plan, since the last call that was about
   * `unwanted` tunnels; 0 for other calls.
   */
  readonly pathsRemoved: number;
}

export interface WorkerStatus {
  /** 0 while the worker is down. */
  readonly pid: number;
  /** The counters of the port where edges connect: what came, and what was refused. */
  readonly listener: Readonly<Record<string, number>>;
  readonly dataPlane: Readonly<Record<string, number>>;
  readonly device: Readonly<Record<string, number>>;
  /** By site. */
  readonly verdicts: Readonly<Record<string, VerdictCounters>>;
}

/** A connection that has led to no tunnel; who it was is known only if its certificate was verified. */
export interface RefusedPeer {
  readonly remoteAddress: string;
  readonly code: string;
  readonly reason: string;
  readonly site?: string | undefined;
  readonly serial?: string | undefined;
}
