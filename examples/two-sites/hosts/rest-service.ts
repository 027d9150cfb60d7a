/**
 * `rest-service PORT...`: a small REST service that returns the address of its client.
 * @module
 */
import { createServer } from 'node:http';

for (const port of process.argv.slice(2).map(Number)) {
  createServer((request, response) => {
    response.end(JSON.stringify({ port, client: request.socket.remoteAddress }));
  }).listen(port, '0.0.0.0');
}
process.stdout.write('ready\n');
