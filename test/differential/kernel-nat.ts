/**
 * Linux as the other implementation of twice NAT: a process in a new user and network namespace
 * with two TUNs, `near` and `far`, between which the kernel routes and nftables rewrites.
 * @module
 */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { accessSync, constants } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { type Address, FAMILIES, type Family, type Scene } from './scene.ts';

/** What became of one frame. All frames have a virtio-net header. */
export interface Passage {
  /** Whether the kernel took it at all. */
  readonly isTaken: boolean;
  /** What came out on the other side. */
  readonly out: readonly Uint8Array[];
  /** What came back: the kernel's own ICMP errors. */
  readonly back: readonly Uint8Array[];
}

export interface SetUp {
  /** Arguments of `ip`. */
  readonly commands: readonly string[];
  /** Paths under /proc/sys/net. */
  readonly settings: Readonly<Record<string, string>>;
  /** The input of `nft -f`. */
  readonly ruleset: string;
}

export type ChildRequest = SetUp | { readonly batch: readonly (readonly [number, Uint8Array])[] };
export type ChildAnswer =
  | { readonly passages: readonly Passage[]; readonly late: number }
  | { readonly error: string };

/**
 * `stateless`: nftables sets the addresses of each packet by itself, in front of defragmentation and
 * without conntrack. `conntrack`: DNAT and SNAT, which also follow into the quotes of ICMP errors.
 */
export type NatKind = 'stateless' | 'conntrack';

/** Why there is no such namespace here; undefined if there is, and always in CI, so as to fail there. */
export function kernelSkipReason(): string | undefined {
  if (process.env.CI !== undefined) return undefined;
  if (process.platform !== 'linux') return 'not Linux';
  try {
    accessSync('/dev/net/tun', constants.R_OK | constants.W_OK);
  } catch {
    return 'no /dev/net/tun that this user may open';
  }
  for (const command of ['true', 'ip -V', 'nft list ruleset']) {
    try {
      execFileSync('unshare', [...NAMESPACE, ...command.split(' ')], { stdio: 'ignore' });
    } catch {
      return `cannot run ${command} in namespaces of its own`;
    }
  }
  try {
    import.meta.resolve('koffi');
  } catch {
    return 'koffi is not installed';
  }
  return undefined;
}

export class KernelNat {
  /** @throws {Error} if the namespace cannot be made as asked for. */
  static async open(scene: Scene, kind: NatKind): Promise<KernelNat> {
    const child = spawn('unshare', [...NAMESPACE, process.execPath, '--import', 'tsx', CHILD], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
      serialization: 'advanced',
    });
    const nat = new KernelNat(child);
    try {
      await nat.#ask({
        commands: ROUTES,
        settings: kind === 'conntrack' ? { ...FORWARDING, ...TOLERANCE } : FORWARDING,
        ruleset: FAMILIES.map((family) => RULESETS[kind](scene, family)).join(''),
      });
    } catch (error) {
      nat.close();
      throw error;
    }
    return nat;
  }

  readonly #child: ChildProcess;

  private constructor(child: ChildProcess) {
    this.#child = child;
  }

  /** Sends frames through, in order. Each enters where its `from` says. */
  async pass(
    frames: readonly { readonly from: 'near' | 'far'; readonly frame: Uint8Array }[]
  ): Promise<Passage[]> {
    const passages: Passage[] = [];
    for (let i = 0; i < frames.length; i += BATCH) {
      const batch = frames
        .slice(i, i + BATCH)
        .map(({ from, frame }) => [from === 'near' ? 0 : 1, frame] as const);
      const answer = await this.#ask({ batch });
      if (answer.late > 0)
        throw new Error(`${answer.late} packets came out too late to tell whose`);
      passages.push(...answer.passages);
    }
    return passages;
  }

  /** Ends the process, and with it the namespaces and all that is in them. */
  close(): void {
    this.#child.kill('SIGKILL');
  }

  #ask(request: ChildRequest): Promise<Exclude<ChildAnswer, { error: string }>> {
    const child = this.#child;
    return new Promise((resolve, reject) => {
      const settle = (error: Error | undefined, answer?: ChildAnswer): void => {
        clearTimeout(timer);
        child.off('message', onMessage).off('exit', onExit).off('error', onError);
        if (answer !== undefined && !('error' in answer)) resolve(answer);
        else reject(error ?? new Error(`the kernel's side failed: ${answer!.error}`));
      };
      const onMessage = (answer: unknown): void => settle(undefined, answer as ChildAnswer);
      const onExit = (code: number | null, signal: string | null): void =>
        settle(new Error(`the kernel's side ended (${code ?? signal})`));
      const onError = (error: Error): void => settle(error);
      const timer = setTimeout(
        () => settle(new Error(`the kernel's side gave no answer in ${ANSWER_TIMEOUT_MS} ms`)),
        ANSWER_TIMEOUT_MS
      );
      child.on('message', onMessage).on('exit', onExit).on('error', onError);
      child.send(request, (error) => {
        if (error) settle(error);
      });
    });
  }
}

const NAMESPACE = ['--user', '--map-root-user', '--net'];
const CHILD: string = fileURLToPath(new URL('kernel-child.ts', import.meta.url));
const BATCH = 500;
const ANSWER_TIMEOUT_MS = 30_000;

/** Everything from one TUN goes to the other, whatever the address: both sides may use the same ones. */
const ROUTES: readonly string[] = ['-4', '-6'].flatMap((family) => [
  `${family} rule add iif near lookup 100`,
  `${family} rule add iif far lookup 101`,
  `${family} route add default dev far table 100`,
  `${family} route add default dev near table 101`,
]);

const FORWARDING: Readonly<Record<string, string>> = {
  'ipv4/ip_forward': '1',
  'ipv4/conf/all/rp_filter': '0',
  'ipv4/conf/near/rp_filter': '0',
  'ipv4/conf/far/rp_filter': '0',
  'ipv6/conf/all/forwarding': '1',
};

/** Conntrack leaves untranslated what it finds invalid: let it neither judge checksums nor windows. */
const TOLERANCE: Readonly<Record<string, string>> = {
  'netfilter/nf_conntrack_checksum': '0',
  'netfilter/nf_conntrack_tcp_be_liberal': '1',
};

const RULESETS: Readonly<Record<NatKind, (scene: Scene, family: Family) => string>> = {
  stateless: (scene, family) => `
    table ${family} translation {
      ${maps(scene, family)}
      chain prerouting {
        type filter hook prerouting priority -450
        iifname near ${family} saddr set ${family} saddr map @clients ${family} daddr set ${family} daddr map @services
        iifname far ${family} saddr set ${family} saddr map @services_back ${family} daddr set ${family} daddr map @clients_back
      }
    }
  `,
  conntrack: (scene, family) => `
    table ${family} translation {
      ${maps(scene, family)}
      chain prerouting {
        type nat hook prerouting priority -100
        iifname near dnat to ${family} daddr map @services
        iifname far dnat to ${family} daddr map @clients_back
      }
      chain postrouting {
        type nat hook postrouting priority 100
        oifname far snat to ${family} saddr map @clients
        oifname near snat to ${family} saddr map @services_back
      }
    }
  `,
};

function maps({ clients, services }: Scene, family: Family): string {
  const type = family === 'ip' ? 'ipv4_addr' : 'ipv6_addr';
  const map = (name: string, pairs: readonly (readonly [string, string])[]): string =>
    `map ${name} {
      type ${type} : ${type}
      elements = { ${pairs.map(([from, to]) => `${from} : ${to}`).join(', ')} }
    }`;
  const both = ({ real, presence }: Address) => [real, presence] as const;
  const back = ({ real, presence }: Address) => [presence, real] as const;
  return [
    map('clients', clients[family].map(both)),
    map('clients_back', clients[family].map(back)),
    map('services', services[family].map(back)),
    map('services_back', services[family].map(both)),
  ].join('\n');
}
