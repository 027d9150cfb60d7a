/**
 * Follows all changes of etcd by `etcdctl watch`, and checks the rules of the entries that several machines write. It shares
 * no code with the gateways.
 *
 * | entries | rule |
 * | --- | --- |
 * | `lease/<realm>/<address>` | an address that a host has is not given to another one, nor within its quarantine; a host has one address in a realm; none is written while no machine is the controller |
 * | `controller` | it is created, never replaced |
 * | `holder/<site>` | another machine creates it after its deletion, or the holder hands it over |
 * @module
 */
import { setTimeout as delay } from 'node:timers/promises';
import { eventually } from '../support/gateway-process.ts';
import type { Host } from '../support/network.ts';
import type { Violations } from './violations.ts';

interface WatchEvent {
  /** 1 for a deletion. */
  readonly type?: number;
  readonly kv: { readonly key: string; readonly value?: string; readonly mod_revision: number };
}

interface LeaseEntry {
  readonly endpoint: string;
  readonly releasedAt?: number;
}

interface OwnerEntry {
  readonly machine: string;
}

interface HandOvers {
  /** How many are in progress. */
  readonly open: number;
  /** Up to which revision earlier ones may have written keys. */
  readonly until: number;
}

/** The host that may have an address again, and when this process has seen the release. */
interface Released {
  readonly endpoint: string;
  readonly atMs: number;
}

export class StoreWatch {
  /** Whether it need not go on. */
  isOver = false;
  /** The hand-overs by machine. */
  readonly #handOvers = new Map<string, HandOvers>();
  readonly #host: Host;
  readonly #endpoints: string;
  readonly #prefix: string;
  readonly #violations: Violations;
  readonly #members: readonly string[];
  /** What it has seen. */
  #revision = 0;
  readonly #entries = new Map<string, unknown>();
  readonly #released = new Map<string, Released>();
  /** The address of each host, keyed by its realm and the host. */
  readonly #addresses = new Map<string, string>();
  #mark = 0;

  /** @param prefix what the keys of the cloud begin with */
  constructor(host: Host, members: readonly string[], prefix: string, violations: Violations) {
    this.#host = host;
    this.#prefix = prefix;
    this.#violations = violations;
    this.#members = members.map((each) => `http://${each}:2379`);
    this.#endpoints = `--endpoints=${this.#members.join(',')}`;
    void this.#follow();
  }

  /** The addresses in use by realm and address, each with its host. */
  get leases(): ReadonlyMap<string, string> {
    const leases = new Map<string, string>();
    for (const [key, value] of this.#entries) {
      const { endpoint, releasedAt } = value as LeaseEntry;
      if (!key.startsWith(LEASE) || releasedAt !== undefined) continue;
      leases.set(key.slice(LEASE.length), endpoint);
    }
    return leases;
  }

  /** A machine is asked for a hand-over of sites from now on. */
  beginHandOver(machine: string): void {
    const { open = 0, until = 0 } = this.#handOvers.get(machine) ?? {};
    this.#handOvers.set(machine, { open: open + 1, until });
  }

  /** The hand-over is in the store now, or never will be. */
  async endHandOver(machine: string): Promise<void> {
    const text = await this.#ctl('get', MARK, '-w', 'json');
    const until = JSON.parse(text).header.revision as number;
    this.#handOvers.set(machine, { open: this.#handOvers.get(machine)!.open - 1, until });
  }

  /** Waits until it has seen all that is in the store now. */
  async caughtUp(): Promise<void> {
    const mark = `${++this.#mark}`;
    await this.#ctl('put', MARK, mark);
    await eventually('the watch of etcd', () => this.#entries.get(MARK) === mark || undefined);
  }

  /** Returns all entries that it has seen, for a report. */
  dump(): string {
    const lines = Array.from(this.#entries, ([key, value]) => `${key} ${JSON.stringify(value)}`);
    return lines
      .filter((line) => /^(lease|holder|controller|worker|machine|applied)/.test(line))
      .join('\n');
  }

  /** Runs `etcdctl` until it gets an answer. */
  #ctl(...args: readonly string[]): Promise<string> {
    return eventually(`etcdctl ${args[0]}`, async () => {
      const { code, stdout } = await this.#host.run(['etcdctl', this.#endpoints, ...args], 20);
      return code === 0 ? stdout : undefined;
    });
  }

  /** Watches at one member after the other, since one that hangs shows nothing. */
  async #follow(): Promise<void> {
    for (let turn = 0; !this.isOver; turn++) {
      const member = this.#members[turn % this.#members.length]!;
      const from = `--rev=${this.#revision + 1}`;
      const program = this.#host.start(
        ['etcdctl', `--endpoints=${member}`, 'watch', '--prefix', '/', from, '-w', 'json'],
        WATCH_SECONDS
      );
      let read = 0;
      program.child.stdout!.on('data', () => {
        read = this.#onOutput(program.stdout, read);
      });
      await program.ended;
      await delay(PAUSE_MS);
    }
  }

  /** Takes the lines of an output from a position on. Returns where the next one begins. */
  #onOutput(stdout: string, from: number): number {
    for (let read = from; ; ) {
      const end = stdout.indexOf('\n', read);
      if (end < 0) return read;
      const { Events = [] } = JSON.parse(stdout.slice(read, end)) as {
        readonly Events?: readonly WatchEvent[];
      };
      read = end + 1;
      const revisions = new Map<number, WatchEvent[]>();
      for (const event of Events) {
        const { mod_revision: revision } = event.kv;
        revisions.set(revision, [...(revisions.get(revision) ?? []), event]);
      }
      for (const [revision, events] of revisions) {
        this.#commit(events);
        this.#revision = revision;
      }
    }
  }

  /** Takes the changes of one transaction: what it ends comes first. */
  #commit(events: readonly WatchEvent[]): void {
    const changes = events.map(({ type, kv }) => {
      const key = Buffer.from(kv.key, 'base64').toString();
      const text = Buffer.from(kv.value ?? '', 'base64').toString();
      const value = type === 1 ? undefined : key === MARK ? text : (JSON.parse(text) as unknown);
      const name = key.startsWith(this.#prefix) ? key.slice(this.#prefix.length) : key;
      return { name, value, revision: kv.mod_revision };
    });
    const isEnd = (value: unknown): boolean =>
      value === undefined || (value as LeaseEntry).releasedAt !== undefined;
    const hadController = this.#entries.has(CONTROLLER);
    for (const first of [true, false]) {
      for (const { name, value, revision } of changes) {
        if (isEnd(value) !== first) continue;
        const where = `revision ${revision}: ${name}`;
        if (name.startsWith(LEASE)) {
          if (!hadController)
            this.#violations.add(`${where} was written while no machine was the controller`);
          this.#lease(where, name.slice(LEASE.length), value as LeaseEntry | undefined);
        } else if (name === CONTROLLER && value !== undefined && hadController) {
          this.#violations.add(`${where} was replaced: ${JSON.stringify(value)}`);
        } else if (name.startsWith(HOLDER))
          this.#holder(where, name, revision, value as OwnerEntry | undefined);
        if (value === undefined) this.#entries.delete(name);
        else this.#entries.set(name, value);
      }
    }
  }

  #lease(where: string, name: string, value: LeaseEntry | undefined): void {
    const before = this.#entries.get(`${LEASE}${name}`) as LeaseEntry | undefined;
    const [realm, address] = name.split('/') as [string, string];
    const wasInUse = before !== undefined && before.releasedAt === undefined;
    if (wasInUse && (value === undefined || value.releasedAt !== undefined)) {
      this.#released.set(name, { endpoint: before.endpoint, atMs: performance.now() });
      this.#addresses.delete(`${realm} ${before.endpoint}`);
    }
    if (value === undefined || value.releasedAt !== undefined) return;
    const { endpoint } = value;
    if (wasInUse && before.endpoint !== endpoint) {
      this.#violations.add(`${where} is given to ${endpoint}, while ${before.endpoint} has it`);
    }
    const released = this.#released.get(name);
    if (released !== undefined && released.endpoint !== endpoint) {
      const restMs = performance.now() - released.atMs;
      if (restMs < LEAST_REST_MS) {
        this.#violations.add(
          `${where} is given to ${endpoint} ${Math.round(restMs)} ms after ${released.endpoint} had it`
        );
      }
    }
    this.#released.delete(name);
    const host = `${realm} ${endpoint}`;
    const other = this.#addresses.get(host);
    if (other !== undefined && other !== address) {
      this.#violations.add(`${where} is given to ${endpoint}, which has ${other} in ${realm} too`);
    }
    this.#addresses.set(host, address);
  }

  #holder(where: string, name: string, revision: number, value: OwnerEntry | undefined): void {
    const before = this.#entries.get(name) as OwnerEntry | undefined;
    if (before === undefined || value === undefined || before.machine === value.machine) return;
    const { open = 0, until = 0 } = this.#handOvers.get(before.machine) ?? {};
    if (open > 0 || revision <= until) return;
    this.#violations.add(
      `${where} was taken by ${value.machine} without the deletion of the key of ${before.machine}`
    );
  }
}

const LEASE = 'lease/';
const HOLDER = 'holder/';
const CONTROLLER = 'controller';
const MARK = '/faults/mark';
const WATCH_SECONDS = 15;
/** How long it waits before it watches again. */
const PAUSE_MS = 100;
/** The quarantine is 60 s; this process may have seen the release late, while a member of etcd did not answer. */
const LEAST_REST_MS = 40_000;
