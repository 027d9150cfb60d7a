/**
 * What a gateway sets on its machine so that the kernel forwards between the LAN and the TUN and nowhere
 * else, and how the machine gets back what it had. Both the kernel's settings and the rules outlive a
 * gateway that is killed: the rules go on to refuse. The next gateway of the same TUN takes both over, and so
 * does a gateway of any TUN when that TUN is gone.
 * @module
 */
import type { IpPrefix } from '../base/prefix.ts';
import { EnvironmentError } from '../errors.ts';
import {
  GATEWAY_GROUP,
  type GatewayRecord,
  installTable,
  isUnanswered,
  type ReplacedSetting,
  readTables,
  removeTable,
  tableNameOf,
  tableNames,
} from './gateway-table.ts';
import { ip } from './ip-command.ts';
import {
  GATEWAY_VALUES,
  type InterfaceSetting,
  interfaceNames,
  readSetting,
  type SettingKind,
  writeSetting,
} from './kernel-settings.ts';

export interface HostOptions {
  /** The TUNs of one gateway; the first gives the table its name. */
  readonly tuns: readonly string[];
  /** Interfaces that are forwarded to and from the TUNs; undefined: neither forwarding nor rules are touched. */
  readonly lans: readonly string[] | undefined;
  /** Interfaces at which the kernel answers ARP. */
  readonly proxyArp: readonly string[];
  /** What is behind the TUNs. */
  readonly prefixes: readonly IpPrefix[];
  /** Is told what somebody else has done to the rules while the gateway runs, one sentence each time. */
  readonly onProblem: (problem: string) => void;
}

export class HostSetup {
  /**
   * Sets the machine up. The rules come first, so that nothing is ever forwarded that they would refuse. A
   * setup that this process has opened for the same first TUN before is replaced.
   *
   * @throws {EnvironmentError} if a setting cannot be written, if `nft` does not answer, or if IPv6 would have
   *   to be forwarded without rules. What was set before is undone then, and an earlier setup of this process
   *   stays in force.
   */
  static open(options: HostOptions): Promise<HostSetup> {
    return inTurn(async () => {
      const earlier = IN_FORCE.get(options.tuns[0]!);
      const needsProof =
        options.lans !== undefined && (earlier === undefined || earlier.#table === undefined);
      const setup = new HostSetup(options, needsProof ? await faultOfRules(options) : undefined);
      try {
        await setup.#apply(earlier);
      } catch (error) {
        await (earlier === undefined ? setup.#undo() : earlier.#standIn(setup)).catch(() => {});
        throw error;
      }
      IN_FORCE.set(options.tuns[0]!, setup);
      if (earlier !== undefined) earlier.#stopWatching();
      if (setup.#table !== undefined) setup.#watch();
      return setup;
    });
  }

  /** What the machine lacks, or was found to be wrong with it, one sentence each; the gateway works without. */
  readonly problems: readonly string[];
  readonly #problems: string[] = [];
  readonly #options: HostOptions;
  readonly #table: string | undefined;
  /** What this gateway has set, whether or not a table records it. */
  #replaced: readonly ReplacedSetting[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** The fault that was reported last, so that one that lasts is reported once. */
  #lastFault = '';

  private constructor(options: HostOptions, rulesFault: string | undefined) {
    this.#options = options;
    this.problems = this.#problems;
    const { tuns, lans } = options;
    const hasTable = lans !== undefined && rulesFault === undefined;
    this.#table = hasTable ? tableNameOf(tuns[0]!) : undefined;
    if (rulesFault !== undefined) {
      this.#problems.push(
        `there are no rules for ${tuns[0]} (${rulesFault}): nothing refuses packets from the LAN and from ${tuns[0]} to other interfaces, nor packets from other interfaces whose source is an address behind ${tuns[0]}; install nftables`
      );
    }
  }

  /**
   * Restores every setting that still has the value that the gateway gave it and that no other gateway of this
   * machine needs, and removes the rules. The same a second time changes nothing, and so does the call for a
   * setup that a later one has replaced.
   *
   * @throws {EnvironmentError} if a setting cannot be restored, or the rules cannot be removed. The other
   *   settings are restored all the same. The rules stay if a setting could not be restored, for the machine
   *   may still forward; another call tries again.
   */
  close(): Promise<void> {
    return inTurn(async () => {
      if (!this.isInForce) return;
      this.#stopWatching();
      await this.#undo();
      IN_FORCE.delete(this.#options.tuns[0]!);
    });
  }

  /** Whether it is not closed, and no later setup of this process has replaced it. */
  get isInForce(): boolean {
    return IN_FORCE.get(this.#options.tuns[0]!) === this;
  }

  async #undo(): Promise<void> {
    const table = this.#table;
    if (table === undefined) {
      restore(this.#replaced);
      return;
    }
    try {
      const tables = await readTables().catch((error) => {
        restore(this.#replaced);
        throw error;
      });
      // Somebody else may have removed the table.
      const replaced = tables.get(table)?.replaced ?? this.#replaced;
      restore(replaced.filter((it) => !isRecorded(tables, it, [table])));
      // Another gateway may have begun to need one of them in between.
      const meanwhile = await readTables();
      for (const it of replaced) {
        if (isRecorded(meanwhile, it, [table])) writeSetting(it, GATEWAY_VALUES[it.kind]);
      }
    } catch (cause) {
      throw new EnvironmentError(
        `${(cause as Error).message}; the rules of table inet ${table} stay, for the machine may still forward: set what it records back, then run "nft delete table inet ${table}"`,
        { cause }
      );
    }
    await this.#removeRules(table);
  }

  async #removeRules(table: string): Promise<void> {
    try {
      await removeTable(table);
    } finally {
      await setGroup(this.#options.tuns, 0);
    }
  }

  /** @param earlier the setup of this process that this one replaces */
  async #apply(earlier: HostSetup | undefined): Promise<void> {
    const table = this.#table;
    // Read before the tables are, so that what another gateway is about to set is found in one of them.
    const wanted = this.#wanted().map((it) => ({ ...it, value: readSetting(it) }));
    const tables = table === undefined ? NO_TABLES : await readTables();
    const stale = table === undefined ? [] : staleTables(tables, table);
    const remembered = earlier === undefined ? [] : earlier.#replaced;
    const left = [
      ...(tables.get(table ?? '')?.replaced ?? remembered),
      ...stale.flatMap((name) => tables.get(name)!.replaced),
    ];
    const records = [...tables.values()].flatMap(({ replaced }) => replaced);
    const recorded = new Map([...records, ...left].map((it) => [keyOf(it), it]));
    this.#replaced = wanted.flatMap(({ kind, of, value }) => {
      const before = recorded.get(keyOf({ kind, of }))?.before ?? value;
      const isAsNeeded = before === undefined || before === GATEWAY_VALUES[kind];
      return isAsNeeded || isRouterAnyway(kind) ? [] : [{ kind, of, before }];
    });
    // Those of an earlier gateway stay in the table until they are restored.
    const isWanted = new Set(wanted.map(keyOf));
    const obsolete = [...new Map(left.map((it) => [keyOf(it), it])).values()].filter(
      (it) => !isWanted.has(keyOf(it))
    );
    if (table !== undefined) await this.#install(table, [...this.#replaced, ...obsolete]);
    for (const name of stale) {
      await removeTable(name);
      this.#problems.push(
        `the rules of a gateway that was killed (table inet ${name}) were removed, for none of its interfaces is there any more (${tables.get(name)!.tuns.join(', ')}); the settings that it had changed are taken over`
      );
    }
    for (const it of wanted) writeSetting(it, GATEWAY_VALUES[it.kind]);
    if (obsolete.length > 0) {
      restore(obsolete.filter((it) => !isRecorded(tables, it, [table ?? '', ...stale])));
      if (table !== undefined) await this.#install(table, this.#replaced);
    }
    if (table === undefined && earlier !== undefined && earlier.#table !== undefined) {
      await earlier.#removeRules(earlier.#table);
    }
  }

  /** Has this setup in force again after a later one, which was to replace it, has failed. */
  async #standIn(failed: HostSetup): Promise<void> {
    const own = new Set(this.#replaced.map(keyOf));
    if (this.#table !== undefined) await this.#install(this.#table, this.#replaced);
    for (const it of this.#replaced) writeSetting(it, GATEWAY_VALUES[it.kind]);
    const tables = this.#table === undefined ? NO_TABLES : await readTables();
    restore(
      failed.#replaced.filter(
        (it) => !own.has(keyOf(it)) && !isRecorded(tables, it, [this.#table ?? ''])
      )
    );
  }

  async #install(table: string, replaced: readonly ReplacedSetting[]): Promise<void> {
    const { tuns, lans = [], prefixes } = this.#options;
    await setGroup(tuns, GATEWAY_GROUP);
    await installTable(table, { tuns, lans, prefixes, bridges: await bridgeNames(), replaced });
  }

  /** Installs the rules again when somebody else has removed them, for example by `nft flush ruleset`. */
  #watch(): void {
    let isChecking = false;
    const check = async () => {
      // Checks would pile up while nft does not answer.
      if (isChecking) return;
      isChecking = true;
      await inTurn(() => this.#check()).catch((error: Error) => this.#reportFault(error.message));
      isChecking = false;
    };
    this.#timer = setInterval(() => void check(), CHECK_INTERVAL_MS).unref();
  }

  #stopWatching(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
  }

  async #check(): Promise<void> {
    const table = this.#table!;
    if (this.#timer === undefined) return;
    if (!(await tableNames()).includes(table)) {
      await this.#install(table, this.#replaced);
      this.#options.onProblem(
        `table inet ${table} was removed by somebody else, as "nft flush ruleset" and a reload of nftables do; it is installed again, but for up to ${CHECK_INTERVAL_MS / 1000} s nothing refused what the gateway's rules refuse`
      );
    }
    this.#lastFault = '';
  }

  #reportFault(message: string): void {
    if (message === this.#lastFault) return;
    this.#lastFault = message;
    this.#options.onProblem(
      `it is not known whether table inet ${this.#table} is still there, or it cannot be installed again (${message}); the gateway goes on trying every ${CHECK_INTERVAL_MS / 1000} s`
    );
  }

  /** The settings that the gateway needs, in the order in which they are to be written. */
  #wanted(): InterfaceSetting[] {
    const { tuns, lans = [], proxyArp, prefixes } = this.#options;
    const settings: InterfaceSetting[] = [];
    const want = (kind: SettingKind, of: string) => settings.push({ kind, of });
    if (lans.length > 0 && prefixes.some(({ family }) => family === 4)) {
      // The interface that a packet comes from decides whether it is forwarded.
      for (const each of [...tuns, ...lans]) want('ipv4_forwarding', each);
      if (this.#table === undefined) for (const lan of lans) want('rp_filter', lan);
    }
    if (lans.length > 0 && prefixes.some(({ family }) => family === 6)) {
      if (this.#table === undefined && readSetting(ALL_IPV6) !== 1) {
        throw new EnvironmentError(
          `IPv6 cannot be forwarded between ${lans.join(', ')} and ${tuns[0]} alone, for there are no rules: install nftables, or set net.ipv6.conf.all.forwarding to 1 and see to it yourself what is forwarded`
        );
      }
      for (const each of interfaceNames('ipv6')) {
        if (each !== 'lo' && !tuns.includes(each) && mustTellToAcceptRa(each))
          want('accept_ra', each);
      }
      want('ipv6_forwarding', 'all');
    }
    for (const lan of proxyArp) {
      want('proxy_arp', lan);
      want('proxy_delay', lan);
    }
    return settings;
  }
}

/** Does what reads and changes rules and settings one after the other, so that none undoes half of another. */
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const working = lastTurn.then(work);
  lastTurn = working.catch(() => {});
  return working;
}

/** Tables of gateways of which no TUN is there any more: they ended without closing. */
function staleTables(tables: ReadonlyMap<string, GatewayRecord>, own: string): string[] {
  const existing = interfaceNames('ipv4');
  return [...tables].flatMap(([name, { tuns }]) => {
    const isGone = tuns.length > 0 && !tuns.some((tun) => existing.includes(tun));
    return name !== own && isGone ? [name] : [];
  });
}

/** Puts those of the interfaces into the group that are there. */
async function setGroup(tuns: readonly string[], group: number): Promise<void> {
  const existing = interfaceNames('ipv4');
  for (const tun of tuns) {
    if (existing.includes(tun)) await ip('link', 'set', 'dev', tun, 'group', String(group));
  }
}

async function bridgeNames(): Promise<string[]> {
  const links = JSON.parse((await ip('-json', 'link', 'show', 'type', 'bridge')) || '[]');
  return (links as { ifname?: string }[]).flatMap(({ ifname }) => ifname ?? []);
}

/**
 * Why there can be no rules; undefined if there can be. Whether the kernel takes them is known only when it
 * has them, so they are there then, unless an earlier gateway of this TUN has left its own.
 */
async function faultOfRules({
  tuns,
  lans = [],
  prefixes,
}: HostOptions): Promise<string | undefined> {
  const name = tableNameOf(tuns[0]!);
  try {
    if ((await tableNames()).includes(name)) return undefined;
    await installTable(name, { tuns, lans, prefixes, bridges: await bridgeNames(), replaced: [] });
    return undefined;
  } catch (error) {
    // There may be a table all the same, and it would be taken for none.
    if (isUnanswered(error)) throw error;
    return (error as Error).message;
  }
}

/**
 * Whether the interface takes router advertisements as a host does. It would take none any more when the
 * machine becomes a router, and lose its addresses and routes. The value 2 is there already if a gateway
 * has told it before.
 */
function mustTellToAcceptRa(name: string): boolean {
  const acceptRa = readSetting({ kind: 'accept_ra', of: name });
  if (acceptRa === 2) return true;
  return acceptRa === 1 && readSetting({ kind: 'ipv6_forwarding', of: name }) === 0;
}

/** Last set, first restored: a machine is no router any more before it takes advertisements as a host. */
function restore(replaced: readonly ReplacedSetting[]): void {
  const faults: unknown[] = [];
  for (const it of [...replaced].reverse()) {
    const isOurs = readSetting(it) === GATEWAY_VALUES[it.kind];
    if (!isOurs || isRouterAnyway(it.kind)) continue;
    try {
      writeSetting(it, it.before);
    } catch (fault) {
      faults.push(fault);
    }
  }
  if (faults.length > 0) throw faults[0];
}

/** Whether the operator has the machine forward IPv4 between all interfaces, which no gateway does. */
function isRouterAnyway(kind: SettingKind): boolean {
  return kind === 'ipv4_forwarding' && readSetting({ kind, of: 'all' }) === 1;
}

/**
 * Whether another gateway's table records this setting.
 *
 * @param except the tables that do not count
 */
function isRecorded(
  tables: ReadonlyMap<string, GatewayRecord>,
  setting: InterfaceSetting,
  except: readonly string[]
): boolean {
  for (const [name, { replaced }] of tables) {
    if (!except.includes(name) && replaced.some((it) => keyOf(it) === keyOf(setting))) return true;
  }
  return false;
}

function keyOf({ kind, of }: InterfaceSetting): string {
  return `${kind} ${of}`;
}

const ALL_IPV6: InterfaceSetting = { kind: 'ipv6_forwarding', of: 'all' };
const NO_TABLES: ReadonlyMap<string, GatewayRecord> = new Map();
const CHECK_INTERVAL_MS = 5000;
/** The setups that this process has opened and not closed, by the first TUN. */
const IN_FORCE = new Map<string, HostSetup>();
let lastTurn: Promise<unknown> = Promise.resolve();
