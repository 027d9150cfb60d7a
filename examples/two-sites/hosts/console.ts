/**
 * `console NAME PORT...`: sends its name and the address of the client to each connection.
 * @module
 */
import { createServer } from 'node:net';

const [name, ...ports] = process.argv.slice(2);
for (const port of ports.map(Number)) {
  createServer((socket) => {
    socket.on('error', () => {});
    socket.end(`${JSON.stringify({ name, port, client: socket.remoteAddress })}\n`);
  }).listen(port, '0.0.0.0');
}
process.stdout.write('ready\n');
