/**
 * `rest-service PORT...`: a small REST service that returns the address of its client.
 * @module
 */
import { createServer } from 'node:http';
import type { Socket } from 'node:net';
import { serve } from './serve.ts';

const clients = new WeakMap<Socket, string>();
for (const port of process.argv.slice(2).map(Number)) {
  const server = createServer((request, response) => {
    response.end(JSON.stringify({ port, client: clients.get(request.socket) }));
  });
  await serve(port, (socket, client) => {
    clients.set(socket, client);
    server.emit('connection', socket);
  });
}
process.stdout.write('ready\n');
