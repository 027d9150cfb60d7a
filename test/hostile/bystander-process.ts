/**
 * `bystander-process.ts DEVICE TUNNEL-PORT`: the legitimate edge of site-b, and the hosts of the cloud, in a
 * process of their own, so that the attack does not slow their clocks. It executes the commands of its
 * parent (`bystander.ts`), one message at a time.
 * @module
 */
import { once } from 'node:events';
import { enrol } from '../../src/pki/index.ts';
import { type Credentials, MtlsTunnel } from '../../src/tunnel/index.ts';
import { readDatagram, writeDatagram } from '../support/datagrams.ts';
import { CloudHosts } from './cloud-hosts.ts';
import { BUS, CLIENT, TRUST_DOMAIN } from './plan.ts';
import { Traffic, type TrafficReport } from './traffic.ts';

const [path, port] = process.argv.slice(2);
const hosts = await CloudHosts.open(path!);
const traffic = new Traffic((number) => sendRequest(CLIENT, REQUEST_PORT, number));
let credentials: Credentials;
let tunnel: MtlsTunnel;
/** The address of the service in site-b. */
let service: string;
/** Packets that came to site-b, and answer no request. */
let strange = 0;
/** New clients that wait for an answer. */
const asking = new Map<string, () => void>();

/** The commands of the parent. */
const commands = {
  /** Enrols, connects, and sends the first packet of its client. */
  async join(token: string, at: string): Promise<void> {
    service = at;
    credentials = await enrol(token);
    await connect();
    await commands.request([CLIENT]);
  },

  begin(): void {
    strange = 0;
    hosts.takeSeen();
    traffic.begin();
  },

  async end(
    atLeast: number
  ): Promise<TrafficReport & { strange: number; seen: Record<string, number> }> {
    const report = await traffic.end(atLeast);
    return { ...report, strange, seen: hosts.takeSeen() };
  },

  /** Reconnects, between two requests. Returns how long the tunnel was down, in ms. */
  async reconnect(): Promise<number> {
    await traffic.pause();
    const startMs = performance.now();
    await tunnel.close();
    await connect();
    traffic.resume();
    return performance.now() - startMs;
  },

  /** Sends one request of each of these clients of site-b to the service. Returns how many got an answer. */
  async request(clients: readonly string[]): Promise<number> {
    let answered = 0;
    const all = clients.map(
      (client) =>
        new Promise<void>((resolve) => {
          asking.set(client, () => {
            answered++;
            resolve();
          });
        })
    );
    for (const client of clients) sendRequest(client, ASK_PORT, 0);
    let timer: NodeJS.Timeout | undefined;
    const deadline = new Promise((resolve) => {
      timer = setTimeout(resolve, ASK_DEADLINE_MS);
    });
    await Promise.race([Promise.all(all), deadline]);
    clearTimeout(timer);
    return answered;
  },

  /** Returns when the event loop gets to this process's command. */
  turn(): void {},

  flood(destination: string, destinationPort: number, count: number): Promise<number> {
    return hosts.flood(destination, destinationPort, count);
  },
};
export type Commands = typeof commands;

async function connect(): Promise<void> {
  tunnel = MtlsTunnel.dial({
    endpoints: [{ host: '127.0.0.1', port: Number(port) }],
    expectedPeer: { trustDomain: TRUST_DOMAIN, role: 'cloud' },
    ...credentials,
  });
  tunnel.onPacket = onPacket;
  await once(tunnel as never, 'up');
}

function sendRequest(source: string, sourcePort: number, number: number): boolean {
  const payload = Buffer.alloc(REQUEST_BYTES);
  payload.writeUInt32BE(number);
  const ends = { source, sourcePort, destination: service, destinationPort: BUS.port };
  const packet = writeDatagram({ ...ends, payload });
  const hasLeft = tunnel.sendPacket(packet, 0, packet.length);
  tunnel.flush();
  return hasLeft;
}

function onPacket(buffer: Buffer, start: number, end: number): void {
  const datagram = readDatagram(buffer, start, end);
  if (datagram?.source !== service) strange++;
  else if (datagram.destinationPort === REQUEST_PORT) {
    traffic.onAnswer(datagram.payload.readUInt32BE());
  } else asking.get(datagram.destination)?.();
}

const REQUEST_PORT = 40_000;
const ASK_PORT = 40_001;
const REQUEST_BYTES = 64;
const ASK_DEADLINE_MS = 5_000;

process.on('disconnect', () => process.exit());
process.on(
  'message',
  ({ id, name, args }: { id: number; name: keyof Commands; args: unknown[] }) => {
    const command = commands[name] as (...args: unknown[]) => unknown;
    Promise.resolve()
      .then(() => command(...args))
      .then(
        (result) => process.send!({ id, result }),
        (error: Error) => process.send!({ id, error: error.stack })
      );
  }
);
process.send!({ ready: true });
