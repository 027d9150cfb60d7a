/**
 * A member in a process of its own, as the controller sees it. When it ends without having been told to,
 * it is started again; until it is back, what it is told goes nowhere, for then it is told everything.
 * @module
 */
import { type ChildProcess, fork } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'node:events';
import { setTimeout as delay } from 'node:timers/promises';
import {
  CloseCode,
  type CutReport,
  EnvironmentError,
  type Explanation,
  type Json,
  type PathStatus,
  type Presence,
  type PresenceUse,
  type TranslationPlan,
  type TunnelCredentials,
  type TunnelRefusal,
} from 'virtual-presence';
import type { HostPort } from '../program/fields.ts';
import type { AccessTable } from './access.ts';
import type { Member, MemberAddresses, MemberHooks, MemberStatus, SiteTunnel } from './member.ts';
import type { ControllerCalls, MemberCalls, MemberStart, TunnelDetails } from './member-calls.ts';
import { type Calls, Wire } from './wire.ts';

export interface ChildMemberOptions
  extends Pick<MemberStart, 'number' | 'device' | 'tunnel' | 'limits'> {
  readonly credentials: () => TunnelCredentials;
  /** What it is to know, as that is now. */
  readonly plan: () => TranslationPlan;
  readonly access: () => AccessTable;
  /** It is open again after it had ended, perhaps on another port. */
  readonly onRestart: (addresses: MemberAddresses) => void;
}

/** Tells Node's `fork` what to run: this program, as a member. */
export const MEMBER_ARGUMENT = '--member';

export class ChildMember implements Member {
  readonly #options: ChildMemberOptions;
  readonly #hooks: MemberHooks;
  #child: ChildProcess | undefined;
  #wire: Wire<MemberCalls> | undefined;
  readonly #tunnels = new Map<number, RemoteTunnel>();
  #startedMs = 0;
  /** With the port that it took when it was last open, so that it is found there after a restart. */
  #tunnelAddress: HostPort;
  #isClosing = false;

  constructor(options: ChildMemberOptions, hooks: MemberHooks) {
    this.#options = options;
    this.#hooks = hooks;
    this.#tunnelAddress = options.tunnel;
  }

  load(plan: TranslationPlan): void {
    this.#wire?.tell('load', plan);
  }

  bind(presence: Presence): void {
    this.#wire?.tell('bind', presence);
  }

  /** @throws {EnvironmentError} if it does not come up. */
  async open(): Promise<MemberAddresses> {
    this.#startedMs = performance.now();
    const child = fork(process.argv[1]!, [MEMBER_ARGUMENT], { serialization: 'advanced' });
    this.#child = child;
    const { number } = this.#options;
    const wire = new Wire<MemberCalls>(child, this.#calls());
    let isOpen = false;
    child.once('error', ({ message }) => wire.close(message));
    child.once('exit', (code, signal) => {
      wire.close(`process ${number} has ended (${signal ?? code})`);
      this.#onExit(wire);
      if (isOpen && !this.#isClosing) void this.#openAgain(`${signal ?? code}`);
    });
    try {
      const { device, limits, plan, access } = this.#options;
      const tunnel = this.#tunnelAddress;
      const credentials = this.#options.credentials();
      // From here on it hears of what changes.
      this.#wire = wire;
      const known = { plan: plan(), access: access() };
      const start = { number, device, tunnel, limits, credentials, ...known };
      const addresses = await wire.ask('open', start);
      this.#tunnelAddress = addresses.tunnel;
      isOpen = true;
      return addresses;
    } catch (error) {
      if (this.#wire === wire) this.#wire = undefined;
      if (child.connected) child.disconnect();
      throw error;
    }
  }

  start(): void {}

  refreshAccess(): void {
    this.#wire?.tell('access', this.#options.access());
  }

  setCredentials(credentials: TunnelCredentials): void {
    this.#wire?.tell('credentials', credentials);
  }

  async cut(site: string, code: string, reason: string): Promise<void> {
    await this.#ask('cut', site, code, reason);
  }

  async cutRevoked(code: string, reason: string): Promise<CutReport> {
    return (await this.#ask('cutRevoked', code, reason)) ?? { tunnelsClosed: 0, pathsRemoved: 0 };
  }

  async handOver(site: string, { code, reason, endpoint }: TunnelRefusal): Promise<void> {
    await this.#ask('handOver', site, code, reason, endpoint!);
  }

  async settled(): Promise<void> {
    await this.#ask('settled');
  }

  async gone(): Promise<void> {
    await this.#ask('gone');
  }

  async status(sites: readonly string[]): Promise<MemberStatus> {
    const status = await this.#ask('status', sites);
    return status ?? { pid: 0, listener: {}, dataPlane: {}, device: {}, verdicts: {} };
  }

  async paths(): Promise<readonly PathStatus[]> {
    return (await this.#ask('paths')) ?? [];
  }

  async presenceUses(): Promise<readonly PresenceUse[]> {
    return (await this.#ask('presenceUses')) ?? this.#isDown();
  }

  async explain(packet: Uint8Array, realm: string): Promise<Explanation> {
    return (await this.#ask('explain', packet, realm)) ?? this.#isDown();
  }

  async close(): Promise<void> {
    this.#isClosing = true;
    const child = this.#child;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = new Promise<void>((resolve) => child.once('exit', () => resolve()));
    await this.#ask('close');
    if (child.connected) child.disconnect();
    await ended;
  }

  #calls(): ControllerCalls & Calls {
    const { admit, onTunnel, onRefused, log } = this.#hooks;
    return {
      admit,
      log,
      refusedPeer: onRefused,
      up: (number, of) => {
        const tunnel = new RemoteTunnel(number, of, this.#wire!);
        this.#tunnels.set(number, tunnel);
        onTunnel(tunnel);
      },
      control: (number, message) => this.#tunnels.get(number)?.emit('control', message),
      refused: (number, type) => this.#tunnels.get(number)?.sendAgain(type),
      renewed: (number, certificate) => this.#tunnels.get(number)?.renewed(certificate),
      down: (number, code, reason) => this.#end(number, code, reason),
    };
  }

  /** Undefined if the member has ended: then it holds nothing, and knows nothing. */
  async #ask<K extends keyof MemberCalls & string>(
    name: K,
    ...args: Parameters<MemberCalls[K]>
  ): Promise<Awaited<ReturnType<MemberCalls[K]>> | undefined> {
    const wire = this.#wire;
    try {
      return await wire?.ask(name, ...args);
    } catch (error) {
      if (wire !== this.#wire) return undefined;
      throw error;
    }
  }

  #isDown(): never {
    throw new EnvironmentError(`process ${this.#options.number} is being started again`);
  }

  #onExit(wire: Wire<MemberCalls>): void {
    if (this.#wire === wire) this.#wire = undefined;
    for (const number of [...this.#tunnels.keys()]) {
      this.#end(number, CloseCode.ConnectionLost, 'its process has ended');
    }
  }

  #end(number: number, code: string, reason: string): void {
    const tunnel = this.#tunnels.get(number);
    this.#tunnels.delete(number);
    tunnel?.end(code, reason);
  }

  /**
   * At once, but not more often than once in `RESTART_INTERVAL_MS`. Where the configured port is 0, the port that
   * it had may be another program's by now: after an attempt that failed it takes a free one.
   */
  async #openAgain(how: string): Promise<void> {
    const { number, tunnel, onRestart } = this.#options;
    this.#hooks.log(`process ${number} has ended (${how}), starting it again`);
    while (!this.#isClosing) {
      await delay(Math.max(0, this.#startedMs + RESTART_INTERVAL_MS - performance.now()));
      if (this.#isClosing) return;
      try {
        const addresses = await this.open();
        this.#hooks.log(`process ${number} is back`);
        onRestart(addresses);
        return;
      } catch (error) {
        this.#tunnelAddress = tunnel;
        this.#hooks.log(`process ${number}: ${(error as Error).message}`);
      }
    }
  }
}

class RemoteTunnel extends EventEmitter<{ control: [message: Json] }> implements SiteTunnel {
  readonly site: string;
  readonly remoteAddress: string;
  readonly cipher: string;
  readonly keyExchange: SiteTunnel['keyExchange'];
  certificate: X509Certificate;
  onRenewed: () => void = () => {};
  onDown: (code: string, reason: string) => void = () => {};
  readonly #number: number;
  readonly #wire: Wire<MemberCalls>;
  /** By type. */
  readonly #last = new Map<string, Json>();
  readonly #timers = new Map<string, NodeJS.Timeout>();

  constructor(
    number: number,
    { site, remoteAddress, cipher, keyExchange, certificate }: TunnelDetails,
    wire: Wire<MemberCalls>
  ) {
    super();
    this.site = site;
    this.remoteAddress = remoteAddress;
    this.cipher = cipher;
    this.keyExchange = keyExchange;
    this.certificate = new X509Certificate(certificate);
    this.#number = number;
    this.#wire = wire;
  }

  renewed(certificate: Uint8Array): void {
    this.certificate = new X509Certificate(certificate);
    this.onRenewed();
  }

  /** A message makes those of its type before it worthless, so only the last is sent again. */
  sendControl(message: Json): boolean {
    const type = typeOf(message);
    clearTimeout(this.#timers.get(type));
    this.#last.set(type, message);
    this.#wire.tell('control', this.#number, message);
    return true;
  }

  sendAgain(type: string): void {
    clearTimeout(this.#timers.get(type));
    const timer = setTimeout(
      () => this.sendControl(this.#last.get(type) ?? null),
      CONTROL_RETRY_MS
    );
    timer.unref();
    this.#timers.set(type, timer);
  }

  close(code: string, reason: string): void {
    this.#wire.tell('closeTunnel', this.#number, code, reason);
  }

  end(code: string, reason: string): void {
    for (const timer of this.#timers.values()) clearTimeout(timer);
    this.onDown(code, reason);
  }
}

/** Of a control message. */
export function typeOf(message: Json): string {
  return String((message as { readonly type?: Json } | null)?.type);
}

const RESTART_INTERVAL_MS = 1000;
const CONTROL_RETRY_MS = 500;
