/**
 * `HostSetup`: sets up a machine so that the kernel forwards between the LAN and the TUN and nowhere else, and
 * restores it afterwards. Kernel settings and rules stay when a gateway is killed, and the rules go on to drop
 * packets. The next gateway of the same TUN takes both over. If the TUN does not exist any more, the next
 * gateway of any TUN does.
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
  /** The TUNs of one gateway; the table is named after the first. */
  readonly tuns: readonly string[];
  /** The interfaces of the LAN; with `undefined`, neither forwarding nor rules are changed. */
  readonly lans: readonly string[] | undefined;
  /** Interfaces at which the kernel answers ARP. */
  readonly proxyArp: readonly string[];
  /** Interfaces at which the kernel answers neighbour solicitations for its proxy entries. */
  readonly proxyNdp: readonly string[];
  /** The interfaces among `lans` from which sources behind the TUNs are accepted too. */
  readonly transit: readonly string[];
  /** The prefixes behind the TUNs. */
  readonly prefixes: readonly IpPrefix[];
  /** Called with one sentence when another program has removed the rules while the gateway runs. */
  readonly onProblem: (problem: string) => void;
}

/** The settings and rules of one gateway, from `open` to `close`. */
export class HostSetup {
  /**
   * Sets up the machine. The rules come first, so that nothing is forwarded that they would drop. An earlier
   * setup of this process for the same first TUN is replaced.
   *
   * @throws {EnvironmentError} if a setting cannot be written, if `nft` does not answer, or if IPv6 would have
   *   to be forwarded without rules. Everything that was set is undone then, and an earlier setup of this
   *   process stays in force.
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
        await (earlier === undefined ? setup.#undo() : earlier.#reinstate(setup)).catch(() => {});
        throw error;
      }
      IN_FORCE.set(options.tuns[0]!, setup);
      if (earlier !== undefined) earlier.#stopWatching();
      if (setup.#table !== undefined) setup.#watch();
      return setup;
    });
  }

  /** One sentence for each thing that the machine lacks, or that was repaired; the gateway works nevertheless. */
  readonly problems: readonly string[];
  readonly #problems: string[] = [];
  readonly #options: HostOptions;
  readonly #table: string | undefined;
  /** The settings that this gateway has changed, whether or not a table records them. */
  #replaced: readonly ReplacedSetting[] = [];
  #timer: NodeJS.Timeout | undefined;
  /** The fault that was reported last, so that a lasting fault is reported once. */
  #lastFault = '';

  private constructor(options: HostOptions, rulesFault: string | undefined) {
    this.#options = options;
    this.problems = this.#problems;
    const { tuns, lans } = options;
    const hasTable = lans !== undefined && rulesFault === undefined;
    this.#table = hasTable ? tableNameOf(tuns[0]!) : undefined;
    if (rulesFault !== undefined) {
      this.#problems.push(
        `there are no rules for ${tuns[0]} (${rulesFault}): nothing drops packets from the LAN and from ${tuns[0]} to other interfaces, nor packets from other interfaces whose source is an address behind ${tuns[0]}; install nftables`
      );
    }
  }

  /**
   * Restores every setting that still has the value of the gateway and that no other gateway of this machine
   * needs, and removes the rules. A second call changes nothing; neither does a call for a setup that a later
   * one has replaced.
   *
   * @throws {EnvironmentError} if a setting cannot be restored, or the rules cannot be removed. The other
   *   settings are restored nevertheless. If a setting could not be restored, the rules stay, because the
   *   machine may still forward. Another call tries again.
   */
  close(): Promise<void> {
    return inTurn(async () => {
      if (!this.isInForce) return;
      this.#stopWatching();
      await this.#undo();
      IN_FORCE.delete(this.#options.tuns[0]!);
    });
  }

  /** Whether this setup is neither closed nor replaced by a later one of this process. */
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
      // Another program may have removed the table.
      const replaced = tables.get(table)?.replaced ?? this.#replaced;
      restore(replaced.filter((it) => !isRecorded(tables, it, [table])));
      // Another gateway may have started to need one of them in between.
      const meanwhile = await readTables();
      for (const it of replaced) {
        if (isRecorded(meanwhile, it, [table])) writeSetting(it, GATEWAY_VALUES[it.kind]);
      }
    } catch (cause) {
      throw new EnvironmentError(
        `${(cause as Error).message}; the rules of table inet ${table} stay because the machine may still forward: restore the settings that it records, then run "nft delete table inet ${table}"`,
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

  /** @param earlier the setup of this process that this one replaces. */
  async #apply(earlier: HostSetup | undefined): Promise<void> {
    const table = this.#table;
    // The settings are read before the tables: a table then records every value that another gateway has set.
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
    // Settings of an earlier gateway stay in the table until they are restored.
    const isWanted = new Set(wanted.map(keyOf));
    const obsolete = [...new Map(left.map((it) => [keyOf(it), it])).values()].filter(
      (it) => !isWanted.has(keyOf(it))
    );
    if (table !== undefined) await this.#install(table, [...this.#replaced, ...obsolete]);
    for (const name of stale) {
      await removeTable(name);
      this.#problems.push(
        `the rules of a gateway that was killed (table inet ${name}) were removed because none of its interfaces exists any more (${tables.get(name)!.tuns.join(', ')}); the settings that it had changed are taken over`
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

  /** Puts this setup in force again after a later one failed to replace it. */
  async #reinstate(failed: HostSetup): Promise<void> {
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
    const { tuns, lans = [], transit, prefixes } = this.#options;
    await setGroup(tuns, GATEWAY_GROUP);
    const bridges = await bridgeNames();
    await installTable(table, { tuns, lans, transit, prefixes, bridges, replaced });
  }

  /** Installs the rules again when another program has removed them, for example by `nft flush ruleset`. */
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
        `table inet ${table} was removed by another program, as "nft flush ruleset" and a reload of nftables do; it is installed again, but for up to ${CHECK_INTERVAL_MS / 1000} s the gateway's rules did not drop anything`
      );
    }
    this.#lastFault = '';
  }

  #reportFault(message: string): void {
    if (message === this.#lastFault) return;
    this.#lastFault = message;
    this.#options.onProblem(
      `table inet ${this.#table} cannot be checked or installed again (${message}); the gateway tries again every ${CHECK_INTERVAL_MS / 1000} s`
    );
  }

  /** Returns the settings that the gateway needs, in the order in which they must be written. */
  #wanted(): InterfaceSetting[] {
    const { tuns, lans = [], proxyArp, proxyNdp, prefixes } = this.#options;
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
          `IPv6 cannot be forwarded between ${lans.join(', ')} and ${tuns[0]} only, because there are no rules: install nftables, or set net.ipv6.conf.all.forwarding to 1 and filter what is forwarded yourself`
        );
      }
      for (const each of interfaceNames('ipv6')) {
        if (each !== 'lo' && !tuns.includes(each) && mustKeepAcceptingRa(each))
          want('accept_ra', each);
      }
      want('ipv6_forwarding', 'all');
    }
    for (const lan of proxyArp) {
      want('proxy_arp', lan);
      want('proxy_delay', lan);
    }
    if (prefixes.some(({ family }) => family === 6)) {
      for (const lan of proxyNdp) {
        want('proxy_ndp', lan);
        want('proxy_ndp_delay', lan);
      }
    }
    return settings;
  }
}

/** Runs everything that reads or changes rules and settings one after the other. */
function inTurn<T>(work: () => Promise<T>): Promise<T> {
  const working = lastTurn.then(work);
  lastTurn = working.catch(() => {});
  return working;
}

/** Returns the tables of gateways whose TUNs do not exist any more: they ended without `close`. */
function staleTables(tables: ReadonlyMap<string, GatewayRecord>, own: string): string[] {
  const existing = interfaceNames('ipv4');
  return [...tables].flatMap(([name, { tuns }]) => {
    const isGone = tuns.length > 0 && !tuns.some((tun) => existing.includes(tun));
    return name !== own && isGone ? [name] : [];
  });
}

/** Puts the interfaces that exist into the group. */
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
 * Returns why rules are not possible, or undefined if they are. It is known only after a try whether the kernel
 * takes the rules, so this function installs them, unless an earlier gateway of this TUN has left its own.
 */
async function faultOfRules({
  tuns,
  lans = [],
  transit,
  prefixes,
}: HostOptions): Promise<string | undefined> {
  const name = tableNameOf(tuns[0]!);
  try {
    if ((await tableNames()).includes(name)) return undefined;
    const bridges = await bridgeNames();
    await installTable(name, { tuns, lans, transit, prefixes, bridges, replaced: [] });
    return undefined;
  } catch (error) {
    // There may be a table, which must not be treated as missing.
    if (isUnanswered(error)) throw error;
    return (error as Error).message;
  }
}

/**
 * Returns whether the interface accepts router advertisements as a host does. When the machine becomes a
 * router, the interface would ignore them and lose its addresses and routes, unless the setting is 2. It has
 * this value already if a gateway has set it before.
 */
function mustKeepAcceptingRa(name: string): boolean {
  const acceptRa = readSetting({ kind: 'accept_ra', of: name });
  if (acceptRa === 2) return true;
  return acceptRa === 1 && readSetting({ kind: 'ipv6_forwarding', of: name }) === 0;
}

/** Restores in reverse order: the machine must stop to be a router before it accepts advertisements as a host. */
function restore(replaced: readonly ReplacedSetting[]): void {
  const faults: unknown[] = [];
  for (const it of [...replaced].reverse()) {
    const isUnchanged = readSetting(it) === GATEWAY_VALUES[it.kind];
    if (!isUnchanged || isRouterAnyway(it.kind)) continue;
    try {
      writeSetting(it, it.before);
    } catch (fault) {
      faults.push(fault);
    }
  }
  if (faults.length > 0) throw faults[0];
}

/** Returns whether the machine forwards IPv4 between all interfaces, which only an operator sets. */
function isRouterAnyway(kind: SettingKind): boolean {
  return kind === 'ipv4_forwarding' && readSetting({ kind, of: 'all' }) === 1;
}

/**
 * Returns whether the table of another gateway records this setting.
 *
 * @param except the tables that do not count.
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
