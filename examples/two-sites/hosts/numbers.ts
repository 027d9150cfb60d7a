/**
 * `numbers BROKER-URL`: publishes the numbers 1, 2, 3, ... at a RabbitMQ, one every 10 ms, and consumes them, all over one
 * connection with publisher confirms. After SIGTERM it publishes no more, waits until the broker has confirmed and
 * delivered all, and prints one JSON line. If the connection ends before, it fails.
 * @module
 */
import { once } from 'node:events';
import amqp from 'amqplib';

const INTERVAL_MS = 10;

const connection = await amqp.connect(process.argv[2]!);
connection.on('error', (error: Error) => {
  process.stderr.write(`the connection has ended: ${error.message}\n`);
  process.exit(2);
});
const channel = await connection.createConfirmChannel();
const { queue } = await channel.assertQueue('', { exclusive: true });

let confirmed = 0;
let isInOrder = true;
let received = 0;
let published = 0;
let onReceived = (): void => {};
let lastMs = performance.now();
let longestGapMs = 0;

await channel.consume(
  queue,
  (message) => {
    received++;
    isInOrder &&= Number(message?.content) === received;
    onReceived();
  },
  { noAck: true }
);
const timer = setInterval(() => {
  published++;
  channel.sendToQueue(queue, Buffer.from(String(published)), {}, (error) => {
    if (error !== null) return;
    confirmed++;
    const nowMs = performance.now();
    longestGapMs = Math.max(longestGapMs, nowMs - lastMs);
    lastMs = nowMs;
    if (confirmed === 1) process.stdout.write('ready\n');
  });
}, INTERVAL_MS);

await once(process, 'SIGTERM');
clearInterval(timer);
await channel.waitForConfirms();
await new Promise<void>((resolve) => {
  onReceived = () => received >= published && resolve();
  onReceived();
});
const result = { published, confirmed, received, isInOrder, longestGapMs };
process.stdout.write(`${JSON.stringify(result)}\n`);
process.exit(0);
