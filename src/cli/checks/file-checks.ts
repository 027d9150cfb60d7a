/**
 * Whether the gateway can use its files: the state directory, unix sockets, and how many descriptors it may have.
 * @module
 */
import {
  accessSync,
  constants,
  existsSync,
  readdirSync,
  readFileSync,
  realpathSync,
  statSync,
} from 'node:fs';
import { connect } from 'node:net';
import { basename, dirname, join } from 'node:path';
import { type Finding, fail, ok, warn } from './finding.ts';

/** Returns what is found of the state directory. */
export function stateFindings(path: string): Finding[] {
  if (!existsSync(path)) {
    const parent = existingParent(path);
    if (isWritable(parent)) return [ok('state', `the state directory ${path} will be created`)];
    return [
      fail(
        'state',
        `the state directory ${path} does not exist, and this user may not write to ${parent}`,
        `create it for the user of the gateway, with the mode 0700`
      ),
    ];
  }
  const { mode, uid } = statSync(path);
  if (!statSync(path).isDirectory()) {
    return [fail('state', `${path} is not a directory`, 'give another path as stateDirectory')];
  }
  const user = process.getuid?.();
  if (user === 0 && realpathSync(path).startsWith(DYNAMIC_STATE)) {
    return [ok('state', `the state directory ${path} belongs to the user of its systemd unit`)];
  }
  if (user !== undefined && uid !== user) {
    return [
      fail(
        'state',
        `the state directory ${path} belongs to user ${uid}, and this is user ${user}`,
        `run the gateway as user ${uid}, or chown -R ${user} ${path}`
      ),
    ];
  }
  if ((mode & OTHERS) !== 0) {
    const octal = (mode & 0o777).toString(8).padStart(4, '0');
    return [
      fail(
        'state',
        `the state directory ${path} is open to others (mode ${octal})`,
        `chmod 700 ${path}`
      ),
    ];
  }
  if (isWritable(path)) return [ok('state', `the state directory ${path} is for this user alone`)];
  return [
    fail('state', `this user may not write to the state directory ${path}`, `chmod 700 ${path}`),
  ];
}

/** Returns the process that uses the state directory now; undefined if none does. */
export async function userOfState(path: string): Promise<string | undefined> {
  const lock = join(path, 'store.journal.lock');
  let names: string[];
  try {
    names = readdirSync(lock);
  } catch {
    return undefined;
  }
  for (const name of names) {
    if (await answers(join(lock, name))) return name.split('.')[0];
  }
  return undefined;
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(path);
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** @param key the key of the file that says so */
export function socketPathFinding(key: string, path: string): Finding {
  const bytes = Buffer.byteLength(path);
  if (bytes > MAX_PATH_BYTES) {
    return fail(
      'socket',
      `the path of ${key} has ${bytes} bytes, and a unix socket has ${MAX_PATH_BYTES} at most: ${path}`,
      `give a shorter path as ${key}`
    );
  }
  const directory = dirname(path);
  if (!existsSync(directory)) {
    if (dirname(directory) === '/run') {
      return warn(
        'socket',
        `there is no directory ${directory} for ${key} yet`,
        `start the gateway by a systemd unit with RuntimeDirectory=${basename(directory)}, which makes it`
      );
    }
    return fail('socket', `there is no directory ${directory} for ${key}`, `mkdir ${directory}`);
  }
  if (isWritable(directory)) return ok('socket', `${path} can be made for ${key}`);
  return fail(
    'socket',
    `this user may not make a socket in ${directory} for ${key}`,
    `give a path in another directory as ${key}, or let this user write to ${directory}`
  );
}

/** @param needed how many descriptors the gateway may need */
export function descriptorFindings(needed: number): Finding[] {
  let limits: string;
  try {
    limits = readFileSync('/proc/self/limits', 'utf8');
  } catch {
    return [];
  }
  const [, text = 'unlimited'] = /^Max open files\s+\S+\s+(\S+)/m.exec(limits) ?? [];
  const most = text === 'unlimited' ? Number.POSITIVE_INFINITY : Number(text);
  if (most >= needed) return [ok('descriptors', `this user may have ${text} open files`)];
  return [
    warn(
      'descriptors',
      `this user may have ${text} open files, and the gateway may need ${needed}`,
      `raise the limit: LimitNOFILE=${needed} in the unit, or "ulimit -n ${needed}"`
    ),
  ];
}

function existingParent(path: string): string {
  let parent = dirname(path);
  while (!existsSync(parent)) parent = dirname(parent);
  return parent;
}

function isWritable(path: string): boolean {
  try {
    accessSync(path, constants.W_OK | constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

const OTHERS = 0o077;
/** Where systemd has the state directories of units with `DynamicUser`; it gives each to the user of its unit. */
const DYNAMIC_STATE = '/var/lib/private/';
/** Of `sun_path` on Linux, without the zero byte (unix(7)). */
const MAX_PATH_BYTES = 107;
