/**
 * Servers of Debian at the address of a scene, each with all its files in the directory of the scene.
 */
import { execFileSync } from 'node:child_process';
import { chownSync, existsSync, readdirSync, writeFileSync } from 'node:fs';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { type RootlessScene, run } from './rootless-scene.ts';

/** The password of PostgreSQL and of Redis. */
export const PASSWORD = 'a secret of the test';
/** Not 5672, at which the RabbitMQ that Debian starts by itself listens at all addresses. */
export const RABBIT_PORT = 5673;
export const SSH_PORT = 2222;
export const WEB_PORT = 8080;

/** The wrapper in /usr/sbin would start it as another user. */
export const RABBITMQ = '/usr/lib/rabbitmq/bin/rabbitmq-server';
/** Debian's packages for Python belong to this one, whatever else is in PATH. */
export const PYTHON = '/usr/bin/python3';

/** Returns why a Python program cannot use AMQP here. */
export function whatPythonMisses(): string | undefined {
  if (existsSync('/usr/lib/python3/dist-packages/amqp')) return undefined;
  return 'the module amqp is not installed (Debian package python3-amqp)';
}

const isRoot = process.getuid?.() === 0;

const VERSIONS = '/usr/lib/postgresql';
const newest = existsSync(VERSIONS)
  ? readdirSync(VERSIONS).sort((a, b) => Number(b) - Number(a))[0]
  : undefined;
/** Where Debian has the programs of PostgreSQL, which are not in PATH. */
const POSTGRES_PROGRAMS = join(VERSIONS, newest ?? '', 'bin');
export const POSTGRES: string = join(POSTGRES_PROGRAMS, 'postgres');

/** Starts PostgreSQL at port 5432, with the user `tester`. */
export async function startPostgres(scene: RootlessScene): Promise<void> {
  const directory = scene.newDirectory('postgres');
  const password = join(directory, 'password');
  const data = join(directory, 'data');
  writeFileSync(password, PASSWORD);
  let user: string[] = [];
  if (isRoot) {
    // PostgreSQL refuses to run as root.
    const [uid, gid] = ['-u', '-g'].map((of) => Number(execFileSync('id', [of, 'postgres'])));
    for (const path of [directory, password]) chownSync(path, uid!, gid!);
    const rights = [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
    // The kernel forgets the signal with the user.
    user = ['setpriv', '--pdeathsig', 'QUIT', ...rights];
  }
  await run([
    ...[...user, 'env', '-C', directory, join(POSTGRES_PROGRAMS, 'initdb')],
    ...['--pgdata', data, '--username=tester', `--pwfile=${password}`, '--auth=scram-sha-256'],
    ...['--encoding=UTF8', '--locale=C', '--no-sync', '--no-instructions'],
  ]);
  // The clients are not at 127.0.0.1, as the backend gives them addresses of their own.
  writeFileSync(join(data, 'pg_hba.conf'), 'host all all 127.0.0.0/8 scram-sha-256\n');
  const settings = [`listen_addresses=${scene.address}`, 'unix_socket_directories=', 'fsync=off'];
  await scene.serve(
    [...user, POSTGRES, '-D', data, ...settings.flatMap((each) => ['-c', each])],
    /ready to accept connections/,
    // It has a segment of shared memory, which SIGKILL would leave behind.
    { signal: 'SIGQUIT' }
  );
}

/** Starts Redis at port 6379. */
export async function startRedis(scene: RootlessScene): Promise<void> {
  await scene.serve(
    [
      ...['redis-server', '--bind', scene.address, '--requirepass', PASSWORD, '--save', ''],
      ...['--dir', scene.newDirectory('redis')],
    ],
    /Ready to accept connections/
  );
}

/** Starts RabbitMQ, without the daemon epmd, which the Erlang programs of a machine share. */
export async function startRabbit(scene: RootlessScene): Promise<void> {
  const home = scene.newDirectory('rabbitmq');
  const config = join(home, 'rabbitmq.conf');
  const plugins = join(home, 'enabled_plugins');
  const settings = [
    `listeners.tcp.default = ${scene.address}:${RABBIT_PORT}`,
    ...['loopback_users = none', 'log.console = true', 'log.file = false'],
  ];
  writeFileSync(config, `${settings.join('\n')}\n`);
  writeFileSync(plugins, '[].\n');
  const node = `vp-${process.pid}@localhost`;
  // Where distribution runs already, RabbitMQ looks for neither epmd nor a free port at all addresses.
  const distribution = [
    ...['-sname', node, '-start_epmd', 'false', '-erl_epmd_port', '25672'],
    ...['-kernel', 'inet_dist_use_interface', `{${scene.address.replaceAll('.', ',')}}`],
  ];
  const env = {
    HOME: home,
    // The server itself takes the place of the script that starts it.
    RABBITMQ_ALLOW_INPUT: '1',
    RABBITMQ_NODENAME: node,
    RABBITMQ_CONFIG_FILE: config,
    RABBITMQ_ENABLED_PLUGINS_FILE: plugins,
    RABBITMQ_MNESIA_BASE: join(home, 'mnesia'),
    RABBITMQ_LOG_BASE: join(home, 'log'),
    RABBITMQ_PID_FILE: join(home, 'pid'),
    RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS: `-noinput +S 1:1 +sbwt none ${distribution.join(' ')}`,
    // A file of its own in place of one in the working directory.
    ERL_CRASH_DUMP: join(home, 'crash'),
  };
  await scene.serve([RABBITMQ], /Server startup complete/, { env });
}

/** Starts an HTTP server with the files of a directory of the scene. */
export async function startWeb(scene: RootlessScene, directory: string): Promise<void> {
  const files = join(scene.directory, directory);
  await scene.serve(
    [
      ...[PYTHON, '-u', '-m', 'http.server', String(WEB_PORT)],
      ...['--bind', scene.address, '--directory', files],
    ],
    /Serving HTTP/
  );
}

/** What ssh and scp need to log in at the server of `startSsh`, as options. */
export function sshOptions(scene: RootlessScene): string[] {
  const directory = join(scene.directory, 'ssh');
  return [
    ...['-F', 'none', '-i', join(directory, 'key'), '-o', 'BatchMode=yes'],
    ...['-o', `UserKnownHostsFile=${join(directory, 'known_hosts')}`],
    // The key is that of the service, whatever the address is at which it is reached.
    ...['-o', 'HostKeyAlias=files', '-o', `User=${userInfo().username}`],
  ];
}

/** Returns why sshd cannot be started here. */
export function whatSshMisses(): string | undefined {
  if (isRoot || existsSync('/run/sshd')) return undefined;
  return 'sshd needs the directory /run/sshd, which only root can make';
}

/** Starts a server of SSH for this user. */
export async function startSsh(scene: RootlessScene): Promise<void> {
  const directory = scene.newDirectory('ssh');
  const [hostKey, key] = ['host', 'key'].map((name) => join(directory, name));
  for (const path of [hostKey!, key!]) {
    await run(['ssh-keygen', '-q', '-t', 'ed25519', '-N', '', '-f', path]);
  }
  const knownHosts = join(directory, 'known_hosts');
  writeFileSync(knownHosts, `files ${execFileSync('ssh-keygen', ['-y', '-f', hostKey!])}`);
  const settings = [
    ...[`ListenAddress ${scene.address}`, `Port ${SSH_PORT}`, `HostKey ${hostKey}`, 'PidFile none'],
    ...[`AuthorizedKeysFile ${key}.pub`, 'StrictModes no', 'Subsystem sftp internal-sftp'],
    ...['PermitRootLogin prohibit-password', 'PasswordAuthentication no'],
  ];
  const config = join(directory, 'sshd_config');
  writeFileSync(config, `${settings.join('\n')}\n`);
  const sshd = ['/usr/sbin/sshd', '-D', '-e', '-f', config];
  // In a file system of its own: the directory of Debian's package would stay behind on this machine.
  const script = 'mount -t tmpfs tmpfs /run && mkdir /run/sshd && exec "$@"';
  const within = isRoot ? ['unshare', '--mount', 'sh', '-c', script, 'sh'] : [];
  await scene.serve([...within, ...sshd], /Server listening/);
}
