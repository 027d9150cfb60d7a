/**
 * `compute-agent BROKER-URL QUEUE`: waits at the broker for requests and answers them, as nova-compute does.
 * @module
 */
import { hostname } from 'node:os';
import amqp from 'amqplib';

const [url, queue] = process.argv.slice(2);
const connection = await amqp.connect(url!);
const channel = await connection.createChannel();
await channel.assertQueue(queue!, { autoDelete: true });
await channel.consume(queue!, (message) => {
  if (message === null) return;
  const { replyTo, correlationId } = message.properties;
  const answer = { from: queue, host: hostname(), request: message.content.toString() };
  channel.sendToQueue(replyTo, Buffer.from(JSON.stringify(answer)), { correlationId });
  channel.ack(message);
});
process.stdout.write('ready\n');
