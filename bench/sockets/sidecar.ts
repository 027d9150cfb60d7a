/**
 * An agent that forwards ports of its host, for programs beside it:
 *
 *     sidecar CONFIG SERVICE PORT...   each port of 127.0.0.1 leads to the same port of the service
 *
 * It says "ready". CONFIG is that of `client.ts`.
 * @module
 */
import { readFileSync } from 'node:fs';
import { EdgeGateway } from 'virtual-presence';
import type { AgentConfig } from './client.ts';

async function main(path: string, host: string, ports: readonly number[]): Promise<void> {
  const config = JSON.parse(readFileSync(path, 'utf8')) as AgentConfig;
  const edge = await EdgeGateway.start({ ...config, device: { type: 'sockets' } });
  await edge.ready({ signal: AbortSignal.timeout(60_000) });
  for (const port of ports) await edge.sockets.forward(port, { host, port });
  console.log('ready');
}

const [path, host, ...ports] = process.argv.slice(2);
await main(path!, host!, ports.map(Number));
