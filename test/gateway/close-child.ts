/**
 * Closes gateways at many moments of their life, and counts what is left: every handle and timer that Node knows of,
 * those too that do not keep the process alive, by the scene in which it was made. Prints one line of JSON, and must
 * then end by itself.
 * @module
 */
import { createHook } from 'node:async_hooks';
import { MemoryDevice } from '../../src/device/index.ts';
import { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { desired, memory } from './scene.ts';

/** The resources that a gateway must free, by their names in `async_hooks`. */
const COUNTED = new Set([
  'Timeout',
  'TCPWRAP',
  'TCPSERVERWRAP',
  'UDPWRAP',
  'PIPEWRAP',
  'PIPESERVERWRAP',
  'PROCESSWRAP',
  'FILEHANDLE',
]);
/** The time that sockets may need until they are gone. */
const LATEST_MS = 10_000;
/** Keyed by the number that `async_hooks` gives. */
const alive = new Map<number, { readonly type: string; readonly scene: string }>();
let current = '';
createHook({
  init: (id, type) => void (COUNTED.has(type) && alive.set(id, { type, scene: current })),
  destroy: (id) => void alive.delete(id),
}).enable();

const options = () => ({ device: MemoryDevice.pair()[0], ...memory() });
const dns = { listen: '127.0.0.1:0' };

async function startCloud(signal?: AbortSignal): Promise<CloudGateway> {
  return CloudGateway.start({
    trustDomain: 'example.test',
    tunnel: '127.0.0.1:0',
    desired: desired('site-a'),
    dns,
    signal,
    ...options(),
  });
}

/** Waits for turns of the event loop. */
async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve));
}

/** Resolves when everything that was closed has had its turn; no timer is used to wait for that. */
async function settle(): Promise<void> {
  const end = performance.now() + LATEST_MS;
  while (alive.size > 0 && performance.now() < end) {
    await turns(10);
    global.gc?.();
  }
}

const results: Record<string, { readonly reached: string; readonly left: Record<string, number> }> =
  {};

/** Runs a scene to its end, and notes what it has reached. What is left of it is counted when all have ended. */
async function scene(name: string, run: () => Promise<string>): Promise<void> {
  current = name;
  results[name] = { reached: await run(), left: {} };
}

/** Turns of the event loop. A start without files is over after two, and an edge is online after about twenty. */
const MOMENTS = [0, 1, 2, 4, 7, 10, 12, 14, 17, 20, 50, 500];

for (const moment of MOMENTS.slice(0, 5)) {
  await scene(`the start of a cloud is aborted after ${moment} turns`, async () => {
    const aborting = new AbortController();
    const starting = startCloud(aborting.signal);
    await Promise.race([turns(moment), starting]);
    aborting.abort(new Error('enough'));
    return starting.then(
      async (cloud) => {
        await cloud.close();
        return 'started';
      },
      (error: Error) => error.message
    );
  });
}

for (const moment of MOMENTS) {
  await scene(`an edge is closed ${moment} turns after its start`, async () => {
    const cloud = await startCloud();
    const token = await cloud.createToken({ site: 'site-a' });
    const edge = await EdgeGateway.start({ token, dns, ...options() });
    await turns(moment);
    const { state } = edge;
    await Promise.all([edge.close(), edge.close()]);
    await cloud.close();
    return state;
  });
  await scene(`a cloud is closed ${moment} turns after an edge has started`, async () => {
    const cloud = await startCloud();
    const token = await cloud.createToken({ site: 'site-a' });
    const edge = await EdgeGateway.start({ token, dns, ...options() });
    await turns(moment);
    const { state } = edge;
    await Promise.all([cloud.close(), cloud.close()]);
    await edge.close();
    return state;
  });
}

await scene('both are closed when packets can flow', async () => {
  await using cloud = await startCloud();
  const token = await cloud.createToken({ site: 'site-a' });
  await using edge = await EdgeGateway.start({ token, dns, ...options() });
  await edge.ready();
  return edge.state;
});

await scene('an edge is closed while it waits to enrol again', async () => {
  const cloud = await startCloud();
  const token = await cloud.createToken({ site: 'site-a' });
  await cloud.close();
  const edge = await EdgeGateway.start({ token, dns, ...options() });
  while (edge.failure === undefined) await turns(1);
  const { state } = edge;
  const enrolling = edge.enrol(token).catch((error: Error) => error);
  await edge.close();
  await enrolling;
  return state;
});

await scene('an edge is closed while it waits for a token', async () => {
  const edge = await EdgeGateway.start({ token: () => new Promise(() => {}), dns, ...options() });
  await turns(10);
  const { state } = edge;
  await edge.close();
  return state;
});

await scene('a start fails because the port is taken', async () => {
  const cloud = await startCloud();
  const { port } = cloud.addresses.tunnels[0]!;
  const failing = CloudGateway.start({
    trustDomain: 'example.test',
    tunnel: `127.0.0.1:${port}`,
    enrolment: { listen: '127.0.0.1:0' },
    dns,
    ...options(),
  });
  const message = await failing.then(
    () => 'started',
    (error: Error) => error.message
  );
  await cloud.close();
  return message.replace(/\d{4,}/, 'PORT');
});

await settle();
for (const { type, scene } of alive.values()) {
  const { left } = results[scene]!;
  left[type] = (left[type] ?? 0) + 1;
}
console.log(JSON.stringify(results));
