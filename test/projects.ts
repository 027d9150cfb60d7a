/**
 * The five projects of the tests, in the order in which they run. Each test file belongs to the first project that
 * names it, or one of whose folders it is in; `quick` has the rest.
 * @module
 */

/** An attacker in place of an edge gateway, and traffic beside it that is measured: after everything else. */
const hostile: readonly string[] = ['test/hostile/'];

/** What TCP does in time, against a Linux beside it: after everything else, together with the hostile tests. */
const timed: readonly string[] = ['test/interop/', 'test/tcp/scripts/linux.test.ts'];

/** Tests that start whole programs, ask the kernel or build the package. */
const programs: readonly string[] = [
  'test/differential/',
  'test/e2e/',
  'test/faults/',
  'test/package/',
  'test/translator/allocation.test.ts',
];

/**
 * Tests of modules that take more than about 1.5 s each (processes, namespaces, keys from passphrases, thousands of
 * cases), and those that need modules of their own, because they mock some or share hooks.
 */
const modules: readonly string[] = [
  'test/cli/bad-arguments.test.ts',
  'test/cli/cloud-commands.test.ts',
  'test/cli/config-endpoints.test.ts',
  'test/cli/config-system.test.ts',
  'test/cli/config.test.ts',
  'test/cli/bench.test.ts',
  'test/control/cluster-property.test.ts',
  'test/cluster/machines-property.test.ts',
  'test/control/derivation-property.test.ts',
  'test/control/idle-leases.test.ts',
  'test/control/plan-partition-property.test.ts',
  'test/control/presence-controller.test.ts',
  'test/control/presence-property.test.ts',
  'test/device/',
  'test/diagnosis/explain-property.test.ts',
  'test/diagnosis/explain.test.ts',
  'test/dns/dig.test.ts',
  'test/etcd/',
  'test/gateway/',
  'test/model/',
  'test/observe/gateway-metrics.test.ts',
  'test/packet/header.test.ts',
  'test/packet/segmenter-linux.test.ts',
  'test/packet/segmenter-malformed.test.ts',
  'test/pki/authority.test.ts',
  'test/pki/ca.test.ts',
  'test/pki/closing.test.ts',
  'test/pki/encrypted-key.test.ts',
  'test/pki/enrolment-authorize.test.ts',
  'test/pki/enrolment-limits.test.ts',
  'test/pki/enrolment-proxy.test.ts',
  'test/pki/enrolment-server.test.ts',
  'test/pki/enrolment.test.ts',
  'test/pki/openssl.test.ts',
  'test/pki/renewal-trust.test.ts',
  'test/pki/renewal.test.ts',
  'test/pki/rollover.test.ts',
  'test/pki/signing-request.test.ts',
  'test/pki/wrong-clock.test.ts',
  'test/replay/replay.test.ts',
  'test/registry/registry-property.test.ts',
  'test/schemas/config-schema.test.ts',
  'test/sockets/udp/datagram-linux.test.ts',
  'test/sockets/proxy/proxy-clients.test.ts',
  'test/sockets/proxy/proxy-hostile.test.ts',
  'test/sockets/forward/forward.test.ts',
  'test/sockets/splice.test.ts',
  'test/sockets/storm.test.ts',
  'test/store/',
  'test/tcp/fuzz.test.ts',
  'test/tcp/oracle.test.ts',
  'test/translator/fast-path.test.ts',
  'test/translator/idle-paths.test.ts',
  'test/translator/property.test.ts',
  'test/translator/reload.test.ts',
  'test/translator/siit.test.ts',
  'test/tunnel/proxy.test.ts',
  'test/worker/',
];

export const projects: Readonly<
  Record<'modules' | 'programs' | 'timed' | 'hostile', readonly string[]>
> = {
  modules,
  programs,
  timed,
  hostile,
};

/** The files that take longest, the longest one first. */
export const longest: readonly string[] = [
  // Of `modules` and `quick`.
  'test/translator/property.test.ts',
  'test/store/secrets.test.ts',
  'test/device/set-routes.test.ts',
  'test/device/linux-tun.test.ts',
  'test/device/tun-process.test.ts',
  'test/device/host-setup.test.ts',
  'test/store/crash.test.ts',
  'test/schemas/api.test.ts',
  'test/gateway/workers.test.ts',
  'test/worker/restart.test.ts',
  'test/gateway/sockets.test.ts',
  // Of `programs`.
  'test/faults/random-faults.test.ts',
  'test/e2e/two-sites.test.ts',
  'test/package/package.test.ts',
  'test/e2e/trust.test.ts',
  'test/e2e/several-processes.test.ts',
  'test/e2e/several-machines-store.test.ts',
  'test/e2e/several-machines.test.ts',
  'test/e2e/several-machines-partitions.test.ts',
  'test/e2e/bad-input.test.ts',
  'test/e2e/bench-demo.test.ts',
  'test/e2e/prometheus.test.ts',
  'test/e2e/several-machines-guide.test.ts',
  'test/e2e/several-machines-amqp.test.ts',
  'test/e2e/proxy.test.ts',
  'test/e2e/sockets-rabbitmq.test.ts',
  'test/e2e/protocols.test.ts',
  'test/e2e/rootless-programs.test.ts',
  'test/translator/allocation.test.ts',
  'test/e2e/command-scene.test.ts',
  // Of `timed` and `hostile`.
  'test/hostile/renewal.test.ts',
  'test/hostile/neighbours.test.ts',
  'test/hostile/handshakes.test.ts',
  'test/interop/transfer.test.ts',
  'test/interop/lifecycle.test.ts',
  'test/interop/links.test.ts',
];

/** The files of all projects but `quick` as patterns of vitest. */
export function patternsOf(paths: readonly string[]): string[] {
  return paths.map((path) => (path.endsWith('/') ? `${path}**/*.test.ts` : path));
}

/** Whether a path of `projects` names the file, or a folder that it is in. */
export function isAt(path: string, file: string): boolean {
  return path.endsWith('/') ? file.startsWith(path) : file === path;
}
