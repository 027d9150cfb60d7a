/**
 * What a gateway sets on its machine so that the kernel forwards between the LAN and the TUN and nowhere
 * else, and how the machine gets back what it had. Both the kernel's settings and the rules outlive a
 * gateway that is killed: the rules go on to refuse, and the next gateway of the same TUN takes both over.
 * @module
 */
import type { IpPrefix } from '../address.ts';
import { EnvironmentError } from '../errors.ts';
import {
  GATEWAY_GROUP,
  type GatewayTable,
  installTable,
  type ReplacedSetting,
  readReplaced,
  removeTable,
  tableNameOf,
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
}

export class HostSetup {
  /**
   * Sets the machine up. The rules come first, so that nothing is ever forwarded that they would refuse.
   *
   * @throws {EnvironmentError} if a setting cannot be written, or if IPv6 would have to be forwarded without
   *   rules. What was set before is undone then.
   */
  static async open(options: HostOptions): Promise<HostSetup> {
    const rulesFault = options.lans === undefined ? undefined : await faultOfRules(options);
    const setup = new HostSetup(options, rulesFault);
    try {
      await setup.#apply();
    } catch (error) {
      await setup.close().catch(() => {});
      throw error;
    }
    return setup;
  }

  /** What the machine lacks, one sentence each; the gateway works without. */
  readonly problems: readonly string[];
  readonly #options: HostOptions;
  readonly #table: string | undefined;
  /** What this gateway has set; without a table nobody else remembers it. */
  #replaced: readonly ReplacedSetting[] = [];

  private constructor(options: HostOptions, rulesFault: string | undefined) {
    this.#options = options;
    const { tuns, lans } = options;
    const hasTable = lans !== undefined && rulesFault === undefined;
    this.#table = hasTable ? tableNameOf(tuns[0]!) : undefined;
    this.problems =
      rulesFault === undefined
        ? []
        : [
            `there are no rules for ${tuns[0]} (${rulesFault}): nothing refuses packets from the LAN and from ${tuns[0]} to other interfaces, nor packets from other interfaces whose source is an address behind ${tuns[0]}; install nftables`,
          ];
  }

  /**
   * Restores every setting that still has the value that the gateway gave it and that no other gateway of this
   * machine needs, and removes the rules. The same a second time changes nothing.
   *
   * @throws {EnvironmentError} if a setting cannot be restored, or the rules cannot be removed; the rest is
   *   done all the same.
   */
  async close(): Promise<void> {
    const table = this.#table;
    const remembered = this.#replaced;
    this.#replaced = [];
    if (table === undefined) {
      restore(remembered);
      return;
    }
    const tables = await readReplaced().catch(() => new Map([[table, remembered]]));
    const replaced = tables.get(table) ?? [];
    try {
      restore(replaced.filter((it) => !isRecorded(tables, it, table)));
      // Another gateway may have begun to need one of them in between.
      const meanwhile = await readReplaced();
      for (const it of replaced) {
        if (isRecorded(meanwhile, it, table)) writeSetting(it, GATEWAY_VALUES[it.kind]);
      }
    } finally {
      await removeTable(table);
      await setGroup(this.#options.tuns, 0);
    }
  }

  async #apply(): Promise<void> {
    const table = this.#table;
    // Read before the tables are, so that what another gateway is about to set is found in one of them.
    const wanted = this.#wanted().map((it) => ({ ...it, value: readSetting(it) }));
    const tables = table === undefined ? NO_TABLES : await readReplaced();
    const recorded = new Map([...tables.values()].flat().map((it) => [keyOf(it), it]));
    this.#replaced = wanted.flatMap(({ kind, of, value }) => {
      const before = recorded.get(keyOf({ kind, of }))?.before ?? value;
      const isAsNeeded = before === undefined || before === GATEWAY_VALUES[kind];
      return isAsNeeded || isRouterAnyway(kind) ? [] : [{ kind, of, before }];
    });
    if (table !== undefined) await setGroup(this.#options.tuns, GATEWAY_GROUP);
    const bridges = table === undefined ? [] : await bridgeNames();
    const rules = (replaced: readonly ReplacedSetting[]) => this.#rules(bridges, replaced);
    const earlier = tables.get(table ?? '') ?? [];
    // Those of an earlier gateway of this TUN stay in the table until they are restored.
    const isWanted = new Set(wanted.map(keyOf));
    const obsolete = earlier.filter((it) => !isWanted.has(keyOf(it)));
    if (table !== undefined) await installTable(table, rules([...this.#replaced, ...obsolete]));
    for (const it of wanted) writeSetting(it, GATEWAY_VALUES[it.kind]);
    if (table === undefined || obsolete.length === 0) return;
    restore(obsolete.filter((it) => !isRecorded(tables, it, table)));
    await installTable(table, rules(this.#replaced));
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

  #rules(bridges: readonly string[], replaced: readonly ReplacedSetting[]): GatewayTable {
    const { tuns, lans = [], prefixes } = this.#options;
    return { tuns, lans, prefixes, bridges, replaced };
  }
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
    if ((await readReplaced()).has(name)) return undefined;
    await installTable(name, { tuns, lans, prefixes, bridges: await bridgeNames(), replaced: [] });
    return undefined;
  } catch (error) {
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

/** Whether another gateway's table records this setting. */
function isRecorded(
  tables: ReadonlyMap<string, readonly ReplacedSetting[]>,
  setting: InterfaceSetting,
  own: string
): boolean {
  for (const [name, replaced] of tables) {
    if (name !== own && replaced.some((it) => keyOf(it) === keyOf(setting))) return true;
  }
  return false;
}

function keyOf({ kind, of }: InterfaceSetting): string {
  return `${kind} ${of}`;
}

const ALL_IPV6: InterfaceSetting = { kind: 'ipv6_forwarding', of: 'all' };
const NO_TABLES: ReadonlyMap<string, readonly ReplacedSetting[]> = new Map();
