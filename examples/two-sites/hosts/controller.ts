/**
 * `controller BROKER-URL QUEUE...`: sends a request to each queue, waits for the reply and prints it, as
 * nova-conductor does. Fails if a reply is missing after five seconds.
 * @module
 */
import { randomUUID } from 'node:crypto';
import amqp from 'amqplib';

const [url, ...queues] = process.argv.slice(2);
const connection = await amqp.connect(url!);
const channel = await connection.createChannel();
const replies = await channel.assertQueue('', { exclusive: true });
const waiting = new Map<string, (reply: string) => void>();
await channel.consume(
  replies.queue,
  (message) => {
    if (message !== null) {
      waiting.get(message.properties.correlationId)?.(message.content.toString());
    }
  },
  { noAck: true }
);
setTimeout(() => {
  process.stderr.write(`no reply to ${waiting.size} requests\n`);
  process.exit(2);
}, 5000).unref();

for (const queue of queues) {
  const correlationId = randomUUID();
  const reply = new Promise<string>((resolve) => waiting.set(correlationId, resolve));
  const request = Buffer.from(`build instance ${correlationId}`);
  channel.sendToQueue(queue, request, { correlationId, replyTo: replies.queue });
  process.stdout.write(`${await reply}\n`);
  waiting.delete(correlationId);
}
await connection.close();
