/**
 * What a run says of a violation: the seed, what has happened, and the state and the log of each machine.
 * @module
 */
import type { MachinesScene } from '../e2e/several-machines-scene.ts';
import { inTime } from './in-time.ts';
import type { StoreWatch } from './store-watch.ts';

export interface ReportParts {
  readonly seed: number;
  readonly texts: readonly string[];
  readonly log: readonly string[];
  readonly scene: MachinesScene;
  readonly watch: StoreWatch;
}

export async function reportOf({ seed, texts, log, scene, watch }: ReportParts): Promise<string> {
  const parts = [
    `seed ${seed}`,
    ...texts.slice(0, MOST_TEXTS).map((text) => `VIOLATION ${text}`),
    '--- what has happened',
    ...log,
    '--- the store, as its watch has shown it',
    watch.dump(),
  ];
  for (const machine of scene.machines) {
    const states = await Promise.all(
      ['/v1/machines', '/v1/status'].map((path) =>
        inTime(scene.ask(machine, 'GET', path), path, ANSWER_MS).then(
          ({ body }) => JSON.stringify(body),
          (error: Error) => error.message
        )
      )
    );
    const routes = await machine.host.run(['ip', '-4', 'route']);
    const lines = machine.gateway.output.split('\n');
    parts.push(`--- ${machine.name}`, ...states, routes.text, ...lines.slice(-LOG_LINES));
  }
  for (const { name, edge } of scene.sites) {
    parts.push(`--- edge of ${name}`, ...edge.output.split('\n').slice(-LOG_LINES));
  }
  return parts.join('\n');
}

const MOST_TEXTS = 20;
const LOG_LINES = 150;
const ANSWER_MS = 5000;
