/**
 * The nftables table of a gateway, `inet vp_<TUN>`. It drops packets between interfaces that the gateway does
 * not forward between, and packets whose source is an address behind the TUN but that come from another
 * interface. The kernel keeps the table when the gateway is killed. Therefore the table also records the
 * kernel settings that the gateway has changed, with their values before; nft(8) describes the language.
 * @module
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { IpPrefix } from '../base/prefix.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import type { InterfaceSetting, SettingKind } from './kernel-settings.ts';

/** A setting that a gateway has changed. */
export interface ReplacedSetting extends InterfaceSetting {
  /** The value before the first gateway changed it. */
  readonly before: number;
}

/** The part of a table that other gateways of this machine read, and the next gateway of the same TUN. */
export interface GatewayRecord {
  readonly tuns: readonly string[];
  readonly replaced: readonly ReplacedSetting[];
}

export interface GatewayTable {
  readonly tuns: readonly string[];
  /** The interfaces that the gateway forwards to and from. Packets also pass between the TUNs. */
  readonly lans: readonly string[];
  /** The interfaces among `lans` from which sources behind the TUNs are accepted too. */
  readonly transit: readonly string[];
  /** The prefixes behind the TUNs. */
  readonly prefixes: readonly IpPrefix[];
  /**
   * The bridges of the machine. With `bridge-nf-call-iptables`, frames between the ports of a bridge pass the
   * rules as packets from the bridge to itself. The gateway must not drop them.
   */
  readonly bridges: readonly string[];
  readonly replaced: readonly ReplacedSetting[];
}

/** The group (`ip link set group`) of all TUNs of gateways, by which a table recognises the TUNs of other gateways. */
export const GATEWAY_GROUP = 118;

/** Returns the name of a gateway's table; characters of the TUN's name that nftables forbids are escaped. */
export function tableNameOf(tun: string): string {
  const escaped = tun.replace(/[^A-Za-z0-9]/g, (it) => `_${it.charCodeAt(0).toString(16)}`);
  return `${TABLE_PREFIX}${escaped}`;
}

/** @throws {ApiMisuseError} if a rule cannot have the name of the interface. */
export function checkRuleName(name: string): void {
  if (isRuleName(name)) return;
  throw new ApiMisuseError(
    `interface "${name}" cannot be used in a rule: its name has other characters than letters, digits and . _ @ + -`
  );
}

/**
 * Creates the table, or replaces the one of this name, in one transaction.
 *
 * @throws {EnvironmentError} if `nft` is missing or fails; the message has what it printed.
 */
export async function installTable(name: string, table: GatewayTable): Promise<void> {
  await nft(['-f', '-'], textOf(name, table));
}

/** Removes the table; it is no error if it does not exist. */
export async function removeTable(name: string): Promise<void> {
  // The first line creates the table if it does not exist, so that the second line does not fail.
  await nft(['-f', '-'], `table inet ${name} {}\ndelete table inet ${name}\n`);
}

/**
 * Reads the records in the tables of all gateways on this machine; the keys are the names of the tables.
 *
 * @throws {EnvironmentError} if `nft` is missing, fails, or is ended before it answers.
 */
export async function readTables(): Promise<ReadonlyMap<string, GatewayRecord>> {
  const found = new Map<string, GatewayRecord>();
  for (const name of await tableNames()) {
    try {
      const text = await nft(['-n', 'list', 'table', 'inet', name]);
      found.set(name, { tuns: tunsIn(text), replaced: replacedIn(text) });
    } catch (error) {
      // Its gateway has removed the table in between. After any other fault the table may still exist.
      if (!/No such file or directory/.test((error as Error).message)) throw error;
    }
  }
  return found;
}

/**
 * Lists the names of the tables of all gateways on this machine.
 *
 * @throws {EnvironmentError} if `nft` is missing, fails, or is ended before it answers.
 */
export async function tableNames(): Promise<readonly string[]> {
  const tables = await nft(['list', 'tables', 'inet']);
  return [...tables.matchAll(TABLE_LINE)].map(([, name]) => name!);
}

/** Returns whether the error says that `nft` was ended before it answered: the tables are unknown then. */
export function isUnanswered(error: unknown): boolean {
  const cause = (error as Error).cause as { readonly signal?: string | null } | undefined;
  return typeof cause?.signal === 'string';
}

function tunsIn(text: string): string[] {
  const elements = TUNS.exec(text)?.[1] ?? '';
  return [...elements.matchAll(/"([^"]+)"/g)].map(([, name]) => name!);
}

function replacedIn(text: string): ReplacedSetting[] {
  const replaced: ReplacedSetting[] = [];
  for (const [, kind, elements] of text.matchAll(MAP)) {
    if (!RECORDED.includes(kind as SettingKind)) continue;
    for (const [, of, before] of elements!.matchAll(ELEMENT)) {
      replaced.push({ kind: kind as SettingKind, of: of!, before: Number(before) });
    }
  }
  return replaced;
}

function textOf(name: string, table: GatewayTable): string {
  const { tuns, lans, transit, prefixes, replaced } = table;
  const of = (kind: SettingKind) => replaced.filter((it) => it.kind === kind);
  const addresses = (family: 4 | 6) =>
    prefixes.filter((prefix) => prefix.family === family).map(String);
  const bridged = table.bridges.filter(isRuleName).map((it) => `"${it}" . "${it}"`);
  const maps = RECORDED.map((kind) => {
    const elements = of(kind).map((it) => `"${it.of}" : ${it.before}`);
    return `map ${kind} { type ifname : mark; ${elementsOf(elements)} }`;
  });
  // Forwarding that the gateway has switched on must not serve others.
  const others = [
    'meta nfproto ipv4 iifname @ipv4_forwarding counter drop',
    ...(of('ipv6_forwarding').length > 0 ? ['meta nfproto ipv6 counter drop'] : []),
  ];
  return `
    table inet ${name} {}
    delete table inet ${name}
    table inet ${name} {
      set tuns { type ifname; ${elementsOf(tuns.map(quoted))} }
      set lans { type ifname; ${elementsOf(lans.map(quoted))} }
      set transit { type ifname; ${elementsOf(transit.map(quoted))} }
      set bridged { type ifname . ifname; ${elementsOf(bridged)} }
      set ipv4 { type ipv4_addr; flags interval; auto-merge; ${elementsOf(addresses(4))} }
      set ipv6 { type ipv6_addr; flags interval; auto-merge; ${elementsOf(addresses(6))} }
      ${maps.join('\n      ')}
      chain sources {
        type filter hook prerouting priority raw; policy accept;
        iifname @tuns accept
        iifname @transit accept
        iifname "lo" accept
        ip saddr @ipv4 counter drop
        ip6 saddr @ipv6 counter drop
      }
      chain forwarding {
        type filter hook forward priority filter; policy accept;
        iifname @tuns oifname @tuns accept
        iifname @tuns oifname @lans accept
        iifname @lans oifname @tuns accept
        iifname @tuns counter drop
        oifname @tuns counter drop
        iifgroup ${GATEWAY_GROUP} accept
        oifgroup ${GATEWAY_GROUP} accept
        iifname . oifname @bridged accept
        ${others.join('\n        ')}
      }
    }
  `;
}

function quoted(name: string): string {
  return `"${name}"`;
}

/** Returns the elements of a set; nft refuses an empty list. */
function elementsOf(elements: readonly string[]): string {
  return elements.length === 0 ? '' : `elements = { ${elements.join(', ')} }`;
}

function isRuleName(name: string): boolean {
  return /^[\w.@+-]{1,15}$/.test(name);
}

/** Runs `nft` without a shell and returns its output. */
async function nft(args: readonly string[], input = ''): Promise<string> {
  // The command is in a directory that not every user has in the path.
  const env = { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' };
  const running = promisify(execFile)('nft', args, { env, timeout: NFT_TIMEOUT_MS });
  running.child.stdin!.on('error', () => {});
  running.child.stdin!.end(input);
  try {
    return (await running).stdout;
  } catch (cause) {
    const { code, stderr, message, signal } = cause as NodeJS.ErrnoException & {
      stderr?: string;
      signal?: string | null;
    };
    const ended = signal ? `it was ended by ${signal} before it answered` : message;
    const said = stderr?.trim().split('\n')[0] || ended;
    throw new EnvironmentError(
      String(code) === 'ENOENT' ? 'the command nft is missing' : `nft ${args[0]} failed: ${said}`,
      { cause }
    );
  }
}

const NFT_TIMEOUT_MS = 10_000;
const TABLE_PREFIX = 'vp_';
const TABLE_LINE = /^table inet (vp_\w+)$/gm;
const TUNS = /\bset tuns \{[^{}]*?elements = \{([^{}]*)\}/;
const MAP = /\bmap (\w+) \{[^{}]*?elements = \{([^{}]*)\}/g;
const ELEMENT = /"([^"]+)" : (\w+)/g;
/** The kinds that a table records; each is a map of the table. */
const RECORDED: readonly SettingKind[] = [
  'accept_ra',
  'ipv4_forwarding',
  'ipv6_forwarding',
  'proxy_arp',
  'proxy_delay',
  'proxy_ndp',
  'proxy_ndp_delay',
];
