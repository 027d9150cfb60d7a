/**
 * The contenders: an application at the site that speaks to the service behind the cloud gateway. Cloud gateway, its TUN
 * and the service are the same for all.
 * @module
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Program } from '../../test/support/network.ts';
import { LIFETIME_SECONDS, PORTS } from '../gateway/contender.ts';
import { SERVICE, startCloud, startEdge } from '../gateway/contenders/ours.ts';
import type { GatewayPrograms } from '../gateway/gateway-build.ts';
import { CLOUD_WAN, type Scene } from '../gateway/scene.ts';
import type { SocketPrograms } from './build.ts';
import type { AgentConfig } from './client.ts';

export type ContenderName = 'tunPair' | 'agent' | 'agent1460';

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
  const agent = (kind: string) => async (scene: Scene) => {
    const cloud = await startCloud(gateways, scene, SERVICE_TCP_PORTS);
    const home = join(scene.directory, 'agent');
    mkdirSync(home);
    const path = join(home, 'config.json');
    const config: AgentConfig = {
      stateDirectory: join(home, 'state'),
      token: cloud.token,
      cloud: [`${CLOUD_WAN}:7443`],
    };
    writeFileSync(path, JSON.stringify(config));
    const client = scene.edge.start(
      [process.execPath, ...NODE_OPTIONS, sockets.client, kind, path],
      LIFETIME_SECONDS
    );
    await client.printed(/^ready$/m);
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
        const client = scene.client.start(
          [process.execPath, ...NODE_OPTIONS, sockets.client, 'net'],
          LIFETIME_SECONDS
        );
        await client.printed(/^ready$/m);
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
  ];
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
const NODE_OPTIONS: readonly string[] = (process.env.VP_BENCH_NODE_OPTIONS ?? '')
  .split(' ')
  .filter((option) => option !== '');
