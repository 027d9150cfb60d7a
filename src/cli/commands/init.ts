/**
 * `init cloud` and `init edge`: make a directory for a new gateway, with a configuration that works on this machine.
 * @module
 */
import { existsSync } from 'node:fs';
import { isAbsolute, join, relative, resolve } from 'node:path';
import type { Readable } from 'node:stream';
import { type Command, Option } from 'commander';
import { ConfigError } from '../../errors.ts';
import { resolveCloudOptions } from '../../gateway/index.ts';
import { parseToken } from '../../pki/index.ts';
import { preparePrivateDirectory } from '../../store/private-directory.ts';
import { CommandError, ExitCode } from '../exit.ts';
import { makeDirectory, readText, writeNewFile } from '../files.ts';
import type { Io } from '../io.ts';
import { inspectMachine, type Machine } from '../machine.ts';
import { callOf, routeSentence, shortPath } from '../next-steps.ts';
import { printLines } from '../output.ts';
import { packageFile } from '../package-file.ts';
import { cloudStarter, edgeStarter, type StarterDevice } from '../starter.ts';

interface InitOptions {
  readonly device?: StarterDevice | undefined;
  readonly systemd?: boolean | undefined;
  readonly lan?: string | undefined;
  readonly force?: boolean | undefined;
  readonly dryRun?: boolean | undefined;
}

export function registerInit(program: Command, io: Io): void {
  const init = program
    .command('init')
    .summary('make the configuration of a new gateway')
    .description('Makes the configuration and the state directory of a new gateway.');
  withInitOptions(init.command('cloud'))
    .summary('make the configuration of a cloud gateway')
    .description(
      'Writes cloud.yaml for this machine, and makes the state directory. It says what to do next.'
    )
    .option(
      '--tunnel <host:port>',
      'where edges reach this machine; default: port 7443 of its address'
    )
    .action(
      async (given: string | undefined, options: InitOptions & { readonly tunnel?: string }) => {
        const directory = directoryOf(given, options);
        const machine = await inspectMachine(options.lan);
        const device = deviceOf(machine, options);
        const schema = schemaFor(directory, 'cloud');
        const { systemd, tunnel = `${machine.address}:7443` } = options;
        checkTunnel(tunnel);
        const content = cloudStarter(machine, { device, schema, systemd, tunnel });
        const files = [{ path: join(directory, 'cloud.yaml'), content }];
        if (await make(io, directory, files, options)) {
          printLines(io, [
            deviceSentence(machine, device),
            ...(machine.lan === undefined && options.tunnel === undefined
              ? ['This machine has no address but that of loopback: set tunnel before edges come.']
              : []),
            '',
            'Next: read cloud.yaml, and start the gateway. While it has no site, it prints how to make one.',
            ...startCommands(io, 'cloud', files[0]!.path, options),
            ...routeLines(machine, device, machine.pool),
          ]);
        }
      }
    );
  withInitOptions(init.command('edge'))
    .summary('make the configuration of an edge gateway')
    .description(
      'Writes edge.yaml for this machine, stores the token, and makes the state directory. It says what to do next.'
    )
    .option(
      '--token-file <file>',
      'has the one-time token of the cloud; - reads it from standard input; default: it is put into DIRECTORY/token later'
    )
    .action(
      async (given: string | undefined, options: InitOptions & { readonly tokenFile?: string }) => {
        const directory = directoryOf(given, options);
        const token = options.tokenFile && (await readToken(io, options.tokenFile));
        const machine = await inspectMachine(options.lan);
        const device = deviceOf(machine, options);
        const schema = schemaFor(directory, 'edge');
        const path = join(directory, 'edge.yaml');
        const tokenPath = join(directory, 'token');
        const files = [
          { path, content: edgeStarter(machine, { device, schema, systemd: options.systemd }) },
          ...(token ? [{ path: tokenPath, content: `${token}\n`, mode: 0o600 }] : []),
        ];
        if (await make(io, directory, files, options)) {
          printLines(io, [
            deviceSentence(machine, device),
            '',
            token
              ? 'Next: start the gateway. It enrols with the token, which is of no use afterwards.'
              : `Next: put the token of the cloud's operator into ${shortPath(tokenPath)}, and start the gateway.`,
            ...startCommands(io, 'edge', path, options),
            ...routeLines(machine, device, 'POOL_OF_THE_SITE'),
          ]);
        }
      }
    );
}

function withInitOptions(command: Command): Command {
  return command
    .argument(
      '[directory]',
      'where the files are made; default: this directory, with --systemd /etc/virtual-presence'
    )
    .addOption(
      new Option(
        '--device <type>',
        'tun: through the kernel, for all hosts of the LAN; sockets: without privileges, for this machine; default: what works here'
      ).choices(['tun', 'sockets'])
    )
    .option('--systemd', 'with the directories that the systemd unit of this package gives it')
    .option(
      '--lan <interface>',
      'the interface to the hosts that the gateway serves, such as eth1; default: the one with the address of this machine'
    )
    .option('--force', 'replace files that exist')
    .option('--dry-run', 'print the files, and make nothing');
}

function directoryOf(given: string | undefined, { systemd }: InitOptions): string {
  return given ?? (systemd === true ? '/etc/virtual-presence' : '.');
}

/** Returns the lines that start the gateway. */
function startCommands(
  io: Io,
  kind: 'cloud' | 'edge',
  path: string,
  { systemd }: InitOptions
): string[] {
  if (systemd !== true) return [`  ${callOf(io)} ${kind} ${shortPath(path)}`];
  const unit = `virtual-presence-${kind}`;
  return [
    `  cp ${packageFile(`systemd/${unit}.service`)} /etc/systemd/system/`,
    '  systemctl daemon-reload',
    `  systemctl enable --now ${unit}`,
  ];
}

/** Programs of this machine need no route to what a TUN carries. */
function routeLines({ address, lan }: Machine, device: StarterDevice, pool: string): string[] {
  return device === 'tun' ? [routeSentence(pool, lan?.address ?? address)] : [];
}

function deviceOf({ noTun }: Machine, { device }: InitOptions): StarterDevice {
  return device ?? (noTun === undefined ? 'tun' : 'sockets');
}

function deviceSentence({ noTun }: Machine, device: StarterDevice): string {
  if (device === 'tun') {
    return noTun === undefined
      ? 'The gateway uses a TUN device, because this user may open one: all hosts of the LAN can use it.'
      : `The gateway uses a TUN device, as you have said. It cannot start now: ${noTun}.`;
  }
  const why = noTun === undefined ? 'as you have said' : `because ${noTun}`;
  return `The gateway uses sockets of its own process, ${why}: programs of this machine can use it.`;
}

async function readToken({ stdin }: Io, path: string): Promise<string> {
  const given = path === '-' ? await readStart(stdin) : readText('the token file', path);
  parseToken(given);
  return given.trim();
}

/** Reads a stream to its end, or until it is longer than any token. */
async function readStart(stream: Readable): Promise<string> {
  let text = '';
  for await (const chunk of stream) {
    text += chunk;
    if (text.length > MAX_TOKEN_BYTES) break;
  }
  return text;
}

/** @throws {ConfigError} if no gateway can listen there, or no edge can connect to it. */
function checkTunnel(tunnel: string): void {
  try {
    resolveCloudOptions({ trustDomain: 'x', device: { type: 'sockets' }, tunnel });
  } catch (error) {
    const { path, message } = error as ConfigError;
    throw new ConfigError('--tunnel', message.slice(`${path}: `.length));
  }
}

interface NewFile {
  readonly path: string;
  readonly content: string;
  readonly mode?: number;
}

/**
 * Makes the files and the state directory, and says so.
 *
 * @returns false if nothing was to be made.
 * @throws {CommandError} if a file exists; nothing has been made then.
 */
async function make(
  io: Io,
  directory: string,
  files: readonly NewFile[],
  { force = false, dryRun = false, systemd = false }: InitOptions
): Promise<boolean> {
  const existing = files.find(({ path }) => !force && existsSync(path));
  if (existing !== undefined) {
    const message = `${shortPath(existing.path)} exists already: give another directory, or --force to replace it`;
    throw new CommandError(ExitCode.Usage, message);
  }
  if (dryRun) {
    // A token is no part of what others may see.
    for (const { content, mode } of files) if (mode === undefined) io.stdout.write(content);
    return false;
  }
  makeDirectory(directory);
  const state = join(directory, 'state');
  // The unit has a state directory, which systemd makes.
  if (!systemd) await preparePrivateDirectory(resolve(state));
  for (const { path, content, mode } of files) writeNewFile(path, content, { force, mode });
  const made = files.map(({ path }) => shortPath(path)).join(' and ');
  const stateMade = systemd ? '' : `, and the state directory ${shortPath(state)} (mode 0700)`;
  printLines(io, [`Made ${made}${stateMade}.`]);
  return true;
}

/** Returns where an editor finds the schema: relative to the file if the package is below its directory. */
function schemaFor(directory: string, kind: 'cloud' | 'edge'): string {
  const path = packageFile(`schemas/${kind}.json`);
  const below = relative(resolve(directory), path);
  return below.startsWith('..') || isAbsolute(below) ? path : below;
}

/** More than any token, with white space around it. */
const MAX_TOKEN_BYTES = 65_536;
