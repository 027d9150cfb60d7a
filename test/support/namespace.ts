/**
 * Network namespaces for tests of the Linux TUN. The thread of the test enters a new, empty namespace and leaves
 * it again. Sockets, TUNs and child processes that are created in between belong to the namespace, which ends
 * with the last of them.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, openSync } from 'node:fs';
import { afterAll, beforeAll } from 'vitest';

export { titled } from './titled.ts';

/**
 * Runs the tests of the calling file in their own namespace. Returns why they must be skipped, or undefined if
 * they can run.
 */
export async function useNamespace(): Promise<string | undefined> {
  const skipReason = await tunSkipReason();
  if (skipReason === undefined) {
    let leave: () => void;
    beforeAll(async () => {
      leave = await enterNamespace();
    });
    afterAll(() => leave());
  }
  return skipReason;
}

/** Returns why nftables cannot be tested here, or undefined if it can. */
export function nftSkipReason(): string | undefined {
  try {
    execFileSync('nft', ['--version'], { stdio: 'ignore' });
    return undefined;
  } catch {
    return 'nft is not installed (Debian package nftables)';
  }
}

/** Runs `ip` in the namespace of the calling thread and returns its output. */
export function ip(...args: string[]): string {
  return execFileSync('ip', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

/** Returns why no TUN can be tested here, or undefined if one can. */
async function tunSkipReason(): Promise<string | undefined> {
  if (process.platform !== 'linux') return 'not Linux';
  if (process.getuid?.() !== 0) return 'not root';
  if (!existsSync('/dev/net/tun')) return 'no /dev/net/tun';
  for (const [command, ...args] of [
    ['ip', '-V'],
    ['unshare', '-n', 'true'],
    ['nsenter', '--version'],
    ['setpriv', '--version'],
    ['sysctl', '--version'],
    ['ping', '-V'],
  ] as const) {
    try {
      execFileSync(command, args, { stdio: 'ignore' });
    } catch {
      return `cannot run ${command} ${args.join(' ')}`;
    }
  }
  try {
    await import('koffi');
  } catch {
    return 'koffi is not installed';
  }
  return undefined;
}

/** Enters a new network namespace with loopback up and IPv6 off. Returns the function that leaves it. */
async function enterNamespace(): Promise<() => void> {
  const koffi = await import('koffi');
  const libc = koffi.load(null);
  const unshare = libc.func('int unshare(int flags)');
  const setns = libc.func('int setns(int fd, int nstype)');
  const home = openSync('/proc/thread-self/ns/net', 'r');
  if (unshare(CLONE_NEWNET) !== 0) throw new Error('unshare failed');
  ip('link', 'set', 'dev', 'lo', 'up');
  // With IPv6 on, the kernel sends its own packets to every TUN.
  execFileSync('sysctl', ['-qw', 'net.ipv6.conf.default.disable_ipv6=1']);
  execFileSync('sysctl', ['-qw', 'net.ipv4.conf.all.rp_filter=0']);
  execFileSync('sysctl', ['-qw', 'net.ipv4.conf.default.rp_filter=0']);
  return () => {
    if (setns(home, CLONE_NEWNET) !== 0) throw new Error('setns failed');
    closeSync(home);
  };
}

const CLONE_NEWNET = 0x40000000;
