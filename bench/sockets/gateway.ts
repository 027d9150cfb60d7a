/**
 * The cloud gateway of `rootless.ts`: it reaches services on 127.0.0.1 by its own sockets.
 *
 *     gateway CONFIG
 *
 * It prints "ready" with a token for the site. A line on standard input is answered by one line
 * of JSON: the CPU time of this process, and at the line `memory` its memory.
 * @module
 */
import { readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { CloudGateway } from 'virtual-presence';
import { collected } from './memory.ts';

export interface GatewayConfig {
  readonly stateDirectory: string;
  /** How many services there are. The first is on 127.0.0.1, the others do not exist. */
  readonly services: number;
  /** The TCP ports of each. */
  readonly ports: readonly number[];
}

/** The answer to a line other than `memory`. */
export interface GatewayCpu {
  /** User and system time since the start, in µs. */
  readonly cpuUs: number;
}

async function main(path: string): Promise<void> {
  const { stateDirectory, services, ports } = JSON.parse(
    readFileSync(path, 'utf8')
  ) as GatewayConfig;
  const gateway = await CloudGateway.start({
    trustDomain: ZONE,
    stateDirectory,
    device: { type: 'sockets' },
    tunnel: ANY_PORT,
    dns: { listen: ANY_PORT },
    desired: desiredWith(services, ports),
  });
  console.log(`ready ${await gateway.createToken({ site: SITE })}`);
  for await (const line of createInterface({ input: process.stdin })) {
    const { user, system } = process.cpuUsage();
    console.log(JSON.stringify(line === 'memory' ? collected() : { cpuUs: user + system }));
  }
  process.exit();
}

function desiredWith(count: number, tcpPorts: readonly number[]) {
  const realm = { pools: ['10.128.0.0/9'], zone: ZONE };
  const ports = tcpPorts.map((port) => `tcp/${port}`);
  const names = Array.from({ length: count }, (_, i) => (i === 0 ? 'service' : `service-${i}`));
  return {
    sites: [
      { name: 'cloud', ...realm, sources: ['127.0.0.0/8'] },
      { name: SITE, ...realm, sources: ['10.0.0.0/24'], maxNames: Math.max(count, 4096) },
    ],
    services: names.map((name, i) => ({ name, site: 'cloud', address: addressOf(i), ports })),
    exposures: names.map((service) => ({ service, site: SITE })),
  };
}

/** 127.0.0.1 for the first. */
function addressOf(index: number): string {
  const number = index + 1;
  return `127.${number >> 16}.${(number >> 8) & 255}.${number & 255}`;
}

const ZONE = 'example.test';
const SITE = 'site-a';
const ANY_PORT = '127.0.0.1:0';

await main(process.argv[2]!);
