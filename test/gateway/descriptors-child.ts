/**
 * A cloud gateway whose services are reached by sockets, in a process of its own, which may have few descriptors. The
 * arguments are the TCP port and the UDP port of the service `bus` at 127.0.0.1. Its parent asks by messages.
 * @module
 */
import { closeSync, openSync } from 'node:fs';
import { CloudGateway } from '../../src/gateway/index.ts';
import { ANY_PORT, LAN, memory } from './scene.ts';

const LOOPBACK = '127.0.0.1';
const SITES = ['site-a', 'site-b'];
const [tcp, udp] = process.argv.slice(2);
const cloud = await CloudGateway.start({
  trustDomain: 'example.test',
  tunnel: ANY_PORT,
  device: { type: 'sockets' },
  ...memory(),
  desired: {
    sites: ['cloud', ...SITES].map((name) => ({
      name,
      ...LAN,
      sources: [...LAN.sources, '127.0.0.0/8'],
    })),
    services: [
      { name: 'bus', site: 'cloud', address: LOOPBACK, ports: [`tcp/${tcp}`, `udp/${udp}`] },
    ],
    exposures: SITES.map((site) => ({ service: 'bus', site })),
  },
});
const held: number[] = [];

/** Takes all descriptors but so many. */
function hold(left: number): void {
  try {
    for (;;) held.push(openSync('/dev/null', 'r'));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EMFILE') throw error;
  }
  for (const descriptor of held.splice(-left)) closeSync(descriptor);
}

/** What the parent may ask for. */
export type Question = 'tokens' | 'hold' | 'free' | 'counters';

const answers: Readonly<Record<Question, () => unknown>> = {
  tokens: () => Promise.all(SITES.map((site) => cloud.createToken({ site }))),
  hold: () => hold(8),
  free: () => {
    for (const descriptor of held.splice(0)) closeSync(descriptor);
  },
  counters: async () => (await cloud.status()).sockets,
};

process.on('message', async (question: Question) => {
  process.send!({ answer: await answers[question]() });
});
process.on('disconnect', () => process.exit());
process.send!({ answer: 'ready' });
