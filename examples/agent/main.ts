/**
 * `agent DIRECTORY`: an agent beside nova-compute. Python programs of its host find the services of the cloud by the
 * lines in DIRECTORY/hosts, as in /etc/hosts. The first start needs VP_TOKEN.
 * @module
 */
import { writeFile } from 'node:fs/promises';
import { hostname } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import amqp from 'amqplib';
import { Agent, fetch } from 'undici';
import { EdgeGateway } from 'virtual-presence';

const [stateDirectory = './agent'] = process.argv.slice(2);
const token = process.env.VP_TOKEN;
const path = `${stateDirectory}/rabbitmq.sock`;
const log = (what: unknown): void => console.error(String(what));
const edge = await EdgeGateway.start({ stateDirectory, token, device: { type: 'sockets' } });
edge.on('problem', ({ error }) => log(error));
edge.on('state', ({ state }) => log(`${state} ${edge.failure?.error.message ?? ''}`));
process.once('SIGTERM', () => edge.close().then(() => process.exit()));
await edge.ready();

edge.sockets
  .createServer((socket) => socket.on('error', log).end(`console of ${hostname()}\n`))
  .listen(6080); // A client of the cloud reaches it, if the cloud exposes it.
const services = await edge.sockets.publish();
const writeHosts = () => writeFile(`${stateDirectory}/hosts`, services.hosts()).catch(log);
services.on('change', writeHosts);
void writeHosts();

const dispatcher = new Agent({ connect: edge.sockets.connector() });
async function askNeutron(signal = AbortSignal.timeout(10_000)): Promise<string> {
  return (await fetch('http://neutron:9696/v2.0/networks', { dispatcher, signal })).text();
}

/** Answers requests until the connection ends. */
async function answerRequests(queue: string): Promise<void> {
  const connection = await amqp.connect('amqp://guest:guest@rabbitmq?heartbeat=10', { path });
  const ended = new Promise((resolve) => connection.on('error', log).once('close', resolve));
  const close = () => connection.close().catch(() => {}); // It may have ended by itself.
  const channel = await connection.createChannel();
  channel.on('error', log).on('close', close);
  await channel.assertQueue(queue, { autoDelete: true });
  const answer = async (message: amqp.ConsumeMessage | null): Promise<unknown> => {
    if (message === null) return close(); // The queue was deleted.
    const { replyTo, correlationId } = message.properties;
    const networks = await askNeutron().catch(String);
    return channel.sendToQueue(replyTo, Buffer.from(networks), { correlationId });
  };
  await channel.consume(queue, (message) => answer(message).catch(log), { noAck: true });
  log(`waiting for requests in ${queue}`);
  await ended;
}

await edge.sockets.forward({ path }, { host: 'rabbitmq', port: 5672 });
for (;;) {
  await answerRequests(`compute.${hostname()}`).catch(log);
  await delay(1_000);
}
