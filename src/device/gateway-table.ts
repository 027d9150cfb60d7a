/**
 * The nftables table of a gateway, `inet vp_<TUN>`: it refuses packets between interfaces that the gateway
 * does not forward between, and packets whose source is an address behind the TUN but that do not come
 * from there. The kernel keeps it when the gateway is killed, so it also records the kernel settings that
 * the gateway has changed, with the values before; nft(8) describes the language.
 * @module
 */
import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import type { IpPrefix } from '../base/prefix.ts';
import { ApiMisuseError, EnvironmentError } from '../errors.ts';
import type { InterfaceSetting, SettingKind } from './kernel-settings.ts';

/** A setting that a gateway has changed. */
export interface ReplacedSetting extends InterfaceSetting {
  /** The value from before the first gateway changed it. */
  readonly before: number;
}

/** What the table of a gateway tells the other gateways of this machine, and the next one of its TUN. */
export interface GatewayRecord {
  readonly tuns: readonly string[];
  readonly replaced: readonly ReplacedSetting[];
}

export interface GatewayTable {
  readonly tuns: readonly string[];
  /** Packets pass between these interfaces and the TUNs, and between the TUNs. */
  readonly lans: readonly string[];
  /** What is behind the TUNs. */
  readonly prefixes: readonly IpPrefix[];
  /**
   * The machine's bridges. With `bridge-nf-call-iptables` the frames that a bridge passes between its ports
   * run through the rules as packets from the bridge to itself, and the gateway must leave those alone.
   */
  readonly bridges: readonly string[];
  readonly replaced: readonly ReplacedSetting[];
}

/** The group (`ip link set group`) of all TUNs of gateways: how a table knows those of other gateways. */
export const GATEWAY_GROUP = 118;

/** The name of a gateway's table, whatever characters the name of its TUN has. */
export function tableNameOf(tun: string): string {
  const escaped = tun.replace(/[^A-Za-z0-9]/g, (it) => `_${it.charCodeAt(0).toString(16)}`);
  return `${TABLE_PREFIX}${escaped}`;
}

/** @throws {ApiMisuseError} if a rule cannot hold the name of the interface. */
export function checkRuleName(name: string): void {
  if (isRuleName(name)) return;
  throw new ApiMisuseError(
    `interface "${name}" cannot stand in a rule: its name has other characters than letters, digits and . _ @ + -`
  );
}

/**
 * Creates the table, or replaces the one of this name, all in one go.
 *
 * @throws {EnvironmentError} if `nft` is missing or refuses, with what it said.
 */
export async function installTable(name: string, table: GatewayTable): Promise<void> {
  await nft(['-f', '-'], textOf(name, table));
}

/** Removes the table; one that is not there is no fault. */
export async function removeTable(name: string): Promise<void> {
  // The first line creates it if need be, so that the second one finds it.
  await nft(['-f', '-'], `table inet ${name} {}\ndelete table inet ${name}\n`);
}

/**
 * The records in the tables of all gateways on this machine, by name of table.
 *
 * @throws {EnvironmentError} if `nft` is missing, refuses, or is ended before it answers.
 */
export async function readTables(): Promise<ReadonlyMap<string, GatewayRecord>> {
  const found = new Map<string, GatewayRecord>();
  for (const name of await tableNames()) {
    try {
      const text = await nft(['-n', 'list', 'table', 'inet', name]);
      found.set(name, { tuns: tunsIn(text), replaced: replacedIn(text) });
    } catch (error) {
      // Its gateway has removed the table meanwhile. Any other fault says nothing about the table.
      if (!/No such file or directory/.test((error as Error).message)) throw error;
    }
  }
  return found;
}

/**
 * The names of the tables of all gateways on this machine.
 *
 * @throws {EnvironmentError} if `nft` is missing, refuses, or is ended before it answers.
 */
export async function tableNames(): Promise<readonly string[]> {
  const tables = await nft(['list', 'tables', 'inet']);
  return [...tables.matchAll(TABLE_LINE)].map(([, name]) => name!);
}

/** Whether the error says that `nft` was ended before it answered, so that nothing is known of the tables. */
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
  const { tuns, lans, prefixes, replaced } = table;
  const of = (kind: SettingKind) => replaced.filter((it) => it.kind === kind);
  const addresses = (family: 4 | 6) =>
    prefixes.filter((prefix) => prefix.family === family).map(String);
  const bridged = table.bridges.filter(isRuleName).map((it) => `"${it}" . "${it}"`);
  const maps = RECORDED.map((kind) => {
    const elements = of(kind).map((it) => `"${it.of}" : ${it.before}`);
    return `map ${kind} { type ifname : mark; ${elementsOf(elements)} }`;
  });
  // What the gateway has switched on serves the gateway alone.
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
      set bridged { type ifname . ifname; ${elementsOf(bridged)} }
      set ipv4 { type ipv4_addr; flags interval; auto-merge; ${elementsOf(addresses(4))} }
      set ipv6 { type ipv6_addr; flags interval; auto-merge; ${elementsOf(addresses(6))} }
      ${maps.join('\n      ')}
      chain sources {
        type filter hook prerouting priority raw; policy accept;
        iifname @tuns accept
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

/** An empty list of elements is a fault of syntax. */
function elementsOf(elements: readonly string[]): string {
  return elements.length === 0 ? '' : `elements = { ${elements.join(', ')} }`;
}

function isRuleName(name: string): boolean {
  return /^[\w.@+-]{1,15}$/.test(name);
}

/** Runs `nft` without a shell; returns what it printed. */
async function nft(args: readonly string[], input = ''): Promise<string> {
  // The command is for administrators, and not everybody who may use it has this directory in the path.
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
/** What is set while there is a table; each kind is a map of the table. */
const RECORDED: readonly SettingKind[] = [
  'accept_ra',
  'ipv4_forwarding',
  'ipv6_forwarding',
  'proxy_arp',
  'proxy_delay',
];
