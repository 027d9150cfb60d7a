/**
 * The contenders: an application at the site that speaks to the service behind the cloud gateway. The service is the
 * same for all, and so is the cloud gateway with its TUN, except for `backend`.
 * @module
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Host, Program } from '../../test/support/network.ts';
import { LIFETIME_SECONDS, PORTS } from '../gateway/contender.ts';
import { SERVICE, startCloud, startEdge } from '../gateway/contenders/ours.ts';
import type { GatewayPrograms } from '../gateway/gateway-build.ts';
import { CLOUD_WAN, type Scene } from '../gateway/scene.ts';
import type { SocketPrograms } from './build.ts';
import type { AgentConfig } from './client.ts';

export type ContenderName = 'tunPair' | 'agent' | 'agent1460' | 'backend' | 'forward';

export const CONTENDER_NAMES: readonly ContenderName[] = [
  'tunPair',
  'agent',
  'agent1460',
  'backend',
  'forward',
];

/** A contender that runs. */
export interface Running {
  /** The program of `client.ts`. */
  readonly client: Program;
  /** What the client connects to. */
  readonly host: string;
  /** The gateways that are processes of their own. */
  readonly gateways: readonly Program[];
}

export interface Contender {
  readonly name: ContenderName;
  readonly about: string;
  start(scene: Scene): Promise<Running>;
}

export function contenders(gateways: GatewayPrograms, sockets: SocketPrograms): Contender[] {
  const startNode = async (at: Host, ...words: string[]): Promise<Program> => {
    const program = at.start([process.execPath, ...NODE_OPTIONS, ...words], LIFETIME_SECONDS);
    await program.printed(/^ready$/m);
    return program;
  };
  const agent =
    (kind: string, device?: object) =>
    async (scene: Scene): Promise<Running> => {
      const cloud = await startCloud(gateways, scene, SERVICE_TCP_PORTS, device);
      const client = await startNode(scene.edge, sockets.client, kind, configOf(scene, cloud));
      return { client, host: SERVICE, gateways: [cloud.program] };
    };
  return [
    {
      name: 'tunPair',
      about: 'a Node client with node:net behind an edge gateway with a TUN',
      async start(scene) {
        const cloud = await startCloud(gateways, scene, SERVICE_TCP_PORTS);
        const edge = await startEdge(gateways, scene, cloud.token);
        const answer = await scene.client.get(['getent', 'ahostsv4', SERVICE]);
        const client = await startNode(scene.client, sockets.client, 'net');
        return { client, host: answer.split(/\s/)[0]!, gateways: [cloud.program, edge] };
      },
    },
    {
      name: 'agent',
      about: 'the same Node client with the sockets of an edge gateway in its process',
      start: agent('agent'),
    },
    {
      name: 'agent1460',
      about: 'the same, segments of 1,460 bytes, without offload',
      start: agent('agent-1460'),
    },
    {
      name: 'backend',
      about: 'the agent, and a cloud gateway that reaches the service by its own sockets',
      start: agent('agent', { type: 'sockets' }),
    },
    {
      name: 'forward',
      about: 'a Node client with node:net beside an agent that forwards ports of its host',
      async start(scene) {
        const cloud = await startCloud(gateways, scene, SERVICE_TCP_PORTS);
        const ports = Object.values(SERVICE_PORTS).map(String);
        const config = configOf(scene, cloud);
        const sidecar = await startNode(scene.edge, sockets.sidecar, config, SERVICE, ...ports);
        const client = await startNode(scene.edge, sockets.client, 'net');
        return { client, host: '127.0.0.1', gateways: [cloud.program, sidecar] };
      },
    },
  ];
}

/** Writes the file with which an agent starts, and returns its path. */
function configOf({ directory }: Scene, { token }: { readonly token: string }): string {
  const home = join(directory, 'agent');
  mkdirSync(home);
  const path = join(home, 'config.json');
  const stateDirectory = join(home, 'state');
  const config: AgentConfig = { stateDirectory, token, cloud: [`${CLOUD_WAN}:7443`] };
  writeFileSync(path, JSON.stringify(config));
  return path;
}

/** The ports of `service.c`. */
export type ServicePorts = Readonly<Record<'sink' | 'source' | 'answer', number>>;

export const SERVICE_PORTS: ServicePorts = { sink: 7101, source: 7102, answer: 7103 };

const SERVICE_TCP_PORTS: readonly number[] = [
  ...Object.values(SERVICE_PORTS),
  PORTS.iperf,
  PORTS.answer,
];
/** For a profile: VP_BENCH_NODE_OPTIONS="--cpu-prof --cpu-prof-dir=/tmp/profiles". */
export const NODE_OPTIONS: readonly string[] = (process.env.VP_BENCH_NODE_OPTIONS ?? '')
  .split(' ')
  .filter((option) => option !== '');
