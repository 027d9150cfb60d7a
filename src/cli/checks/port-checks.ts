/**
 * Whether the gateway can listen where its configuration says. Each port is taken for a moment.
 * @module
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { formatHostPort, type HostPort } from '../../base/host-port.ts';
import { type Finding, fail, ok } from './finding.ts';

/** A port that a gateway listens on. */
export interface WantedPort extends HostPort {
  /** The key of the file that says so. */
  readonly key: string;
  readonly protocol: 'tcp' | 'udp';
}

export async function portFindings(wanted: readonly WantedPort[]): Promise<Finding[]> {
  const findings: Finding[] = [];
  // One after the other: two keys may name the same port, and neither is taken then.
  for (const port of wanted) findings.push(await portFinding(port));
  return findings;
}

async function portFinding({ key, protocol, host, port }: WantedPort): Promise<Finding> {
  const place = `${formatHostPort({ host, port })}/${protocol} of ${key}`;
  try {
    await (protocol === 'tcp' ? bindTcp(host, port) : bindUdp(host, port));
    return ok('port', port === 0 ? `a free port can be taken for ${place}` : `${place} is free`);
  } catch (error) {
    const { code = '', message } = error as NodeJS.ErrnoException;
    const [says, remedy] = FAULTS[code] ?? [
      `cannot be listened on: ${message}`,
      'give another one',
    ];
    return fail('port', `${place} ${says}`, `${remedy} (${key})`);
  }
}

async function bindTcp(host: string, port: number): Promise<void> {
  const server = createServer();
  const listening = once(server, 'listening');
  server.listen({ host, port, exclusive: true });
  await listening;
  await new Promise((resolve) => server.close(resolve));
}

async function bindUdp(host: string, port: number): Promise<void> {
  const socket = createSocket(host.includes(':') ? 'udp6' : 'udp4');
  try {
    const listening = once(socket, 'listening');
    socket.bind({ address: host, port, exclusive: true });
    await listening;
  } finally {
    socket.close();
  }
}

/** The meaning of a code of the system, and what to do; keyed by the code. */
const FAULTS: Readonly<Record<string, readonly [says: string, remedy: string]>> = {
  EADDRINUSE: [
    'is in use by another program',
    'stop that program, which "ss -lntup" names, or give another port',
  ],
  EACCES: [
    'needs a right that this user does not have',
    'run the gateway with CAP_NET_BIND_SERVICE, or give a port of 1024 or more',
  ],
  EADDRNOTAVAIL: [
    'is at an address that no interface of this machine has',
    'give an address of this machine, which "ip address" shows',
  ],
  ENOTFOUND: ['is at a name that cannot be looked up', 'give an address'],
};
