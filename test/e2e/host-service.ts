/**
 * `host-service.ts ADDRESS`: the services of a host in these tests. HTTP on 8080, and on 8081, which is not
 * exposed: GET /whoami, GET /data (`test-data.ts`), PUT /data (answers with the SHA-256). UDP on 7777:
 * echo.
 */
import { createHash } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { isIPv6 } from 'node:net';
import { testData } from './test-data.ts';

const address = process.argv[2]!;
const data = testData();
for (const port of [8080, 8081]) {
  const server = createServer((request, response) => {
    if (request.method === 'PUT') {
      const hash = createHash('sha256');
      request.on('data', (chunk) => hash.update(chunk));
      request.on('end', () => response.end(hash.digest('hex')));
    } else if (request.url === '/data') {
      response.end(data);
    } else {
      response.end(request.socket.remoteAddress);
    }
  });
  await once(server.listen(port, address), 'listening');
}
const socket = createSocket(isIPv6(address) ? 'udp6' : 'udp4');
socket.on('message', (message, { port, address }) => socket.send(message, port, address));
socket.bind(7777, address);
await once(socket, 'listening');
process.stdout.write('ready\n');
