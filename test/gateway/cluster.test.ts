/**
 * Two cloud gateways in this process as two machines of one cloud, on one store in memory: an edge is served by one of
 * them at a time, and a client keeps its address whichever it is.
 */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';
import type { CloudGateway, EdgeGateway } from '../../src/gateway/index.ts';
import { MemoryStore } from '../../src/store/index.ts';
import { desired, Gateways, Hosts } from './scene.ts';

/** One machine of the cloud. */
interface Machine {
  readonly name: string;
  readonly store: MemoryStore;
  readonly hosts: Hosts;
  readonly cloud: CloudGateway;
}

const gateways = new Gateways();

let shared: MemoryStore;

async function startMachine(name: string): Promise<Machine> {
  const store = shared.handle();
  const hosts = new Hosts();
  // The service says which machine has brought the request, and from which address it has come.
  hosts.serve(({ source }) => `${name} ${source}`);
  const cloud = await gateways.cloud({
    store: undefined,
    secrets: undefined,
    device: hosts.device,
    trust: { passphrase: 'of both machines' },
    cluster: { store, machine: name, ttlMs: 1000 },
  });
  return { name, store, hosts, cloud };
}

/** Starts the edge of a site, which knows the machine at which it enrols; it learns the others. */
async function startEdge(
  site: string,
  at: Machine
): Promise<{ readonly edge: EdgeGateway; readonly hosts: Hosts }> {
  const hosts = new Hosts();
  const edge = await gateways.edge({
    device: hosts.device,
    token: await at.cloud.createToken({ site }),
  });
  await edge.ready();
  return { edge, hosts };
}

const BUS = '10.0.0.129';

/** Resolves with the next state of a gateway that is not the one of now. */
function nextState(gateway: CloudGateway | EdgeGateway): Promise<string> {
  return new Promise((resolve) => {
    (gateway as CloudGateway).once('state', ({ state }) => resolve(state));
  });
}

/** Asks as a client until a machine answers; answers of another one may have been on their way. */
async function served(hosts: Hosts, machine: string, client: string): Promise<void> {
  let answer: string;
  do answer = await hosts.request(BUS, 'is it served?', client);
  while (!answer.startsWith(`${machine} `));
}

beforeEach(() => {
  shared = new MemoryStore();
});
afterEach(() => gateways.close());

describe('a cloud of two machines', () => {
  test('serves a site at the machine to which its edge has connected, and what one of them is told is in force at both', async () => {
    const one = await startMachine('one');
    const two = await startMachine('two');
    await one.cloud.apply(desired('site-a', 'site-b'));
    const a = await startEdge('site-a', one);
    const b = await startEdge('site-b', two);
    const answers = [await a.hosts.request(BUS, 'from a'), await b.hosts.request(BUS, 'from b')];
    expect(answers.map((answer) => answer.split(' ')[0])).toEqual(['one', 'two']);
    const [ofA, ofB] = answers.map((answer) => answer.split(' ')[1]!);
    expect(ofA).not.toBe(ofB);
    // Both machines know both clients.
    for (const { cloud } of [one, two]) {
      expect(cloud.whois('cloud', ofA!)).toMatchObject({ site: 'site-a' });
      expect(cloud.whois('cloud', ofB!)).toMatchObject({ site: 'site-b' });
    }
  });

  test('a machine that ends hands its sites to the other one, and a client keeps its address', async () => {
    const one = await startMachine('one');
    const two = await startMachine('two');
    await two.cloud.apply(desired('site-a'));
    const { edge, hosts } = await startEdge('site-a', one);
    const [machine, address] = (await hosts.request(BUS, 'before')).split(' ');
    expect(machine).toBe('one');
    await one.cloud.close();
    for (;;) {
      const answer = await hosts.request(BUS, 'after');
      // A last answer of the first machine may have been on its way.
      if (answer.startsWith('one')) continue;
      expect(answer).toBe(`two ${address}`);
      break;
    }
    expect(edge.state).toBe('online');
  });

  test('a machine that does not reach the store goes on to serve its sites, and its gateway says so', async () => {
    const one = await startMachine('one');
    await one.cloud.apply(desired('site-a'));
    const { hosts } = await startEdge('site-a', one);
    const before = await hosts.request(BUS, 'before');
    const degraded = nextState(one.cloud);
    one.store.disconnect();
    expect(await degraded).toBe('degraded');
    expect(await hosts.request(BUS, 'detached')).toBe(before);
    await expect(one.cloud.apply(desired('site-a', 'site-b'))).rejects.toMatchObject({
      code: 'ERR_PRESENCE_STORE_UNAVAILABLE',
    });
    const ready = nextState(one.cloud);
    one.store.reconnect();
    expect(await ready).toBe('ready');
    expect(await hosts.request(BUS, 'attached')).toBe(before);
  });

  test('a revocation at one machine ends the tunnel at the other one before it resolves', async () => {
    const one = await startMachine('one');
    const two = await startMachine('two');
    await one.cloud.apply(desired('site-a'));
    const { edge } = await startEdge('site-a', one);
    const rejected = nextState(edge);
    const receipt = await two.cloud.revoke({ site: 'site-a' });
    expect(receipt).toMatchObject({ confirmed: ['one', 'two'], unconfirmed: [] });
    expect((await one.cloud.status('site-a')).sites[0]).toMatchObject({ edge: undefined });
    await rejected;
  });

  test('drained one after the other, a machine that takes sites again allocates addresses', async () => {
    const one = await startMachine('one');
    const two = await startMachine('two');
    await one.cloud.apply(desired('site-a'));
    const { hosts } = await startEdge('site-a', one);
    expect(await hosts.request(BUS, 'before')).toMatch(/^one /);
    await one.cloud.drain();
    await served(hosts, 'two', '10.0.0.6');
    await one.cloud.resume();
    expect(gateways.log).toEqual(
      expect.arrayContaining([
        expect.stringContaining('one hands its sites over and takes none'),
        expect.stringContaining('one has handed 1 sites over, and keeps 0'),
        expect.stringContaining('one takes sites again'),
      ])
    );
    await two.cloud.drain();
    await two.cloud.close();
    await served(hosts, 'one', '10.0.0.7');
  });
});
