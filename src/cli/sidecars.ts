/**
 * The key `sockets` of both files: the services of other realms for the programs of this machine, as ports, unix
 * sockets, loopback addresses and a proxy. It needs a device of the type `sockets`.
 * @module
 */
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import * as v from 'valibot';
import type { PrefixInput } from '../base/prefix.ts';
import type { Schema } from '../base/schema.ts';
import { ConfigError } from '../errors.ts';
import type { Logger } from '../observe/index.ts';
import { FORWARD_TARGET_ENTRIES } from '../sockets/forward/forward.ts';
import { FORWARD_OPTIONS_ENTRIES } from '../sockets/forward/forward-server.ts';
import { PUBLISH_ENTRIES } from '../sockets/forward/publish.ts';
import { HostListenSchema } from '../sockets/host/host-listen.ts';
import type { HostListen, SocketStack } from '../sockets/index.ts';
import { PROXY_BOUNDS_ENTRIES, resolveProxyOptions } from '../sockets/proxy/proxy-options.ts';
import type { ConfigFile } from './config-file.ts';
import { checkReplaceable, readSecret, replaceFile, writeSecret } from './files.ts';

export interface SidecarKeys {
  /** Every TCP service of the zone at a loopback address of its own, with its own ports; on Linux alone. */
  readonly publish?: PublishKeys | undefined;
  /** Services that have a port or a unix socket of this machine. Each listens once its name is in the zone. */
  readonly forward: readonly ForwardKeys[];
  /** A proxy for SOCKS5 and HTTP CONNECT, for names of the zone and addresses of the pools. */
  readonly proxy?: ProxyKeys | undefined;
}

/** The bounds are those of all services together. */
export interface PublishKeys {
  /** The prefix of the loopback addresses: 4 or more within 127.0.0.0/8, without 127.0.0.1. A name keeps its address. */
  readonly loopback: PrefixInput;
  /** A file of its own that gets addresses and names, as in /etc/hosts, now and at every change. Default: none. */
  readonly hostsFile?: string | undefined;
  /** How many ports are listened on at most. Services with few ports come first. */
  readonly maxListeners: number;
  /** How many connections may be open at once; more are reset. */
  readonly maxConnections: number;
}

export interface ForwardKeys {
  /** Where it listens: a port of 127.0.0.1, an address and a port, or a unix socket. */
  readonly listen: HostListen;
  /** The name of the service in the zone, or the address of a presence. */
  readonly host: string;
  /** The port of the service. */
  readonly port: number;
  /** How many connections may be open at once; more are reset. */
  readonly maxConnections: number;
}

export interface ProxyKeys {
  /** Where it listens: a port of 127.0.0.1, an address and a port, or a unix socket. */
  readonly listen: HostListen;
  /**
   * Whether clients must give the user name `presence` and the password of `passwordFile`; without that, everybody who can
   * connect may use the proxy.
   */
  readonly auth: boolean;
  /** One line with the password, mode 0600. If there is no file, it is created with a random password. */
  readonly passwordFile?: string | undefined;
  /** How many connections may be open at once; more are reset. */
  readonly maxConnections: number;
}

const path = v.pipe(v.string(), v.regex(/./, 'a path'), v.metadata({ title: 'path' }));
const { loopback, maxListeners } = PUBLISH_ENTRIES;

export const SidecarsSchema: Schema<SidecarKeys> = v.strictObject({
  publish: v.optional(
    v.strictObject({
      loopback: loopback!,
      hostsFile: v.optional(path),
      maxListeners: maxListeners!,
      maxConnections: FORWARD_OPTIONS_ENTRIES.maxConnections!,
    })
  ),
  forward: v.optional(
    v.array(
      v.strictObject({
        listen: HostListenSchema,
        ...FORWARD_TARGET_ENTRIES,
        maxConnections: FORWARD_OPTIONS_ENTRIES.maxConnections!,
      })
    ),
    []
  ),
  proxy: v.optional(
    v.strictObject({
      listen: HostListenSchema,
      auth: v.optional(v.boolean(), true),
      passwordFile: v.optional(path),
      maxConnections: PROXY_BOUNDS_ENTRIES.maxConnections!,
    })
  ),
}) as unknown as Schema<SidecarKeys>;

/** Where the sidecars listen, as they are in the log line of a ready gateway. */
export interface SidecarAddresses {
  readonly proxy?: object | string;
  /** In the order of the file; null as long as a name is not in the zone. */
  readonly forward?: readonly (object | string | null)[];
}

interface Gateway {
  readonly sockets: SocketStack;
  close(): Promise<void>;
}

/** @throws {ConfigError} if the keys do not go with each other. Nothing is opened. */
export function checkSidecars(device: object, keys: SidecarKeys | undefined): void {
  if (keys === undefined) return;
  if (!('type' in device) || device.type !== 'sockets') {
    throw new ConfigError('sockets', 'needs a device of the type sockets');
  }
  const { auth, passwordFile } = keys.proxy ?? { auth: false };
  if (auth === (passwordFile !== undefined)) return;
  const wanted = auth
    ? 'expected passwordFile, or auth: false'
    : 'has no use with auth: false: leave out one of the two';
  throw new ConfigError(auth ? 'sockets.proxy' : 'sockets.proxy.passwordFile', wanted);
}

/**
 * Reads the files that the keys name, as `startSidecars` does.
 *
 * @throws {ConfigError} with file, line and key, if one cannot be used.
 * @throws {EnvironmentError} if one cannot be read.
 */
export async function checkSidecarFiles(
  file: ConfigFile,
  keys: SidecarKeys | undefined
): Promise<void> {
  const { publish, proxy } = keys ?? {};
  await file.locate(() => {
    const { hostsFile } = publish ?? {};
    if (hostsFile !== undefined) checkReplaceable(HOSTS_FILE, file.resolve(hostsFile));
  });
  await file.locate(
    () => {
      const { passwordFile } = proxy ?? {};
      if (passwordFile === undefined) return;
      const password = readSecret('passwordFile', file.resolve(passwordFile));
      if (password !== undefined) resolveProxyOptions({ auth: { username: USERNAME, password } });
    },
    { within: 'sockets.proxy', renamed: { 'auth.password': 'passwordFile' } }
  );
}

/**
 * Starts what the keys say. If that fails, the gateway is closed.
 *
 * @throws {ConfigError} with file and line, also if a port or a path cannot be listened on.
 * @throws {EnvironmentError} if a file cannot be read or written.
 */
export async function startSidecars(
  file: ConfigFile,
  keys: SidecarKeys | undefined,
  gateway: Gateway,
  logger: Logger
): Promise<SidecarAddresses> {
  if (keys === undefined) return {};
  const { publish, forward, proxy } = keys;
  const { sockets } = gateway;
  try {
    if (publish !== undefined) await startPublication(file, publish, sockets, logger);
    const forwards: (object | string | null)[] = [];
    for (const [i, each] of forward.entries()) {
      forwards.push(await startForward(file, `sockets.forward[${i}]`, each, sockets, logger));
    }
    const proxyAddress = proxy && (await startProxy(file, proxy, sockets));
    return {
      ...(proxyAddress !== undefined && { proxy: proxyAddress }),
      ...(forwards.length > 0 && { forward: forwards }),
    };
  } catch (error) {
    await gateway.close();
    throw error;
  }
}

async function startPublication(
  file: ConfigFile,
  { hostsFile, ...options }: PublishKeys,
  sockets: SocketStack,
  logger: Logger
): Promise<void> {
  const publication = await file.locate(() => sockets.publish(options), {
    within: 'sockets.publish',
  });
  let before = '';
  const update = (): void => {
    if (hostsFile !== undefined) {
      replaceFile(HOSTS_FILE, file.resolve(hostsFile), publication.hosts());
    }
    const now = publication.entries().flatMap(({ name, loopback, ports, notPublished }) => {
      const published = ports.length > 0 ? [`${name} at ${loopback}, tcp/${ports}`] : [];
      const others = notPublished.filter(({ ports: what }) => what.startsWith('tcp/'));
      return [...published, ...others.map((not) => `not ${name} ${not.ports}: ${not.reason}`)];
    });
    const text = now.join('; ');
    if (text !== before) {
      const message = `published: ${text === '' ? 'nothing' : text}`;
      logger.info({ event: 'sockets_published' }, message);
    }
    before = text;
  };
  await file.locate(update);
  publication.on('change', () => {
    try {
      update();
    } catch (error) {
      logger.warn({ event: 'hosts_file_failed', err: error }, (error as Error).message);
    }
  });
}

/** Returns the address, or null if the name is not in the zone yet: then it is tried again until it is. */
async function startForward(
  file: ConfigFile,
  key: string,
  { listen, host, port, ...options }: ForwardKeys,
  sockets: SocketStack,
  logger: Logger
): Promise<object | string | null> {
  const target = { host, port };
  const start = async (): Promise<object | string> => {
    const { address } = await file.locate(
      () => listening(() => sockets.forward(placeOf(file, listen), target, options), host),
      { within: key, renamed: { 'target.host': 'host', 'target.port': 'port' } }
    );
    const where = shortAddress(address);
    const message = `forward: ${JSON.stringify(where)} leads to ${host}:${port}`;
    logger.info({ event: 'sockets_forwarded' }, message);
    return where;
  };
  const again = async (): Promise<void> => {
    for (;;) {
      await delay(RETRY_MS, undefined, { ref: false });
      try {
        await start();
        return;
      } catch (error) {
        if (isOfTarget(error, host)) continue;
        // The gateway is closed, or the port is taken meanwhile.
        logger.warn({ event: 'forward_failed', err: error }, (error as Error).message);
        return;
      }
    }
  };
  try {
    return await start();
  } catch (error) {
    if (!isOfTarget(error, host)) throw error;
    const { message } = error as Error;
    logger.warn(
      { event: 'forward_waits' },
      `${key}: does not listen yet, and is tried again: ${message}`
    );
    void again();
    return null;
  }
}

async function startProxy(
  file: ConfigFile,
  { listen, auth, passwordFile, ...options }: ProxyKeys,
  sockets: SocketStack
): Promise<object | string> {
  const path = passwordFile === undefined ? undefined : file.resolve(passwordFile);
  const proxy = await file.locate(
    async () => {
      const password = path && readSecret('passwordFile', path);
      const credentials = password === undefined ? {} : { auth: { username: USERNAME, password } };
      const place = placeOf(file, listen);
      return await listening(() =>
        sockets.proxy(place, { ...options, ...(auth ? credentials : { auth: false }) })
      );
    },
    { within: 'sockets.proxy', renamed: { 'auth.password': 'passwordFile' } }
  );
  // Without a password in the file, the proxy has a random one.
  if (path !== undefined) writeSecret('the password file', path, proxy.password!);
  return shortAddress(proxy.address);
}

function placeOf(file: ConfigFile, listen: HostListen): HostListen {
  return typeof listen === 'object' && 'path' in listen ? file.withPath(listen) : listen;
}

/** Turns a system error that is not about the target into one of the key `listen`. */
async function listening<T>(start: () => Promise<T>, target?: string): Promise<T> {
  try {
    return await start();
  } catch (error) {
    const { syscall, message } = error as NodeJS.ErrnoException;
    if (syscall === undefined || isOfTarget(error, target)) throw error;
    throw new ConfigError('listen', message, { cause: error });
  }
}

/** Whether a system error of a forward is about its target, which the cloud may expose later. */
function isOfTarget(error: unknown, target: string | undefined): boolean {
  const { code, syscall, hostname } = error as NodeJS.ErrnoException & { hostname?: string };
  if (code === 'ENETDOWN') return false;
  return syscall === 'connect' || (syscall === 'getaddrinfo' && hostname === target);
}

function shortAddress(address: AddressInfo | string): object | string {
  if (typeof address === 'string') return address;
  const { address: host, port } = address;
  return { host, port };
}

/** The user name of clients of the proxy, which the library has as its default. */
const USERNAME = 'presence';
const RETRY_MS = 1_000;
const HOSTS_FILE = 'sockets.publish.hostsFile';
