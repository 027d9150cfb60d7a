/**
 * `sockets-service-child.ts KEY CERTIFICATE`: the services that the clients of the sockets use. HTTP on 8080 and HTTPS
 * on 8443: `GET /data` (`test-data.ts`), `PUT` (answers with the SHA-256), otherwise the address and port of the client.
 * TCP on 7000: reads to the end, then answers with the SHA-256; TCP on 7001: returns what it reads, and resets when
 * the client does.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import {
  createServer as createHttpServer,
  type IncomingMessage,
  type ServerResponse,
} from 'node:http';
import { createServer as createHttpsServer } from 'node:https';
import { createServer } from 'node:net';
import { pipeline } from 'node:stream';
import { testData } from './test-data.ts';

const data = testData();

function serve(request: IncomingMessage, response: ServerResponse): void {
  const { remoteAddress, remotePort } = request.socket;
  if (request.method === 'PUT') {
    const hash = createHash('sha256');
    request.on('data', (chunk) => hash.update(chunk));
    request.on('end', () => response.end(hash.digest('hex')));
  } else if (request.url === '/data') {
    response.setHeader('Content-Length', data.length);
    response.end(data);
  } else {
    response.end(`${remoteAddress}:${remotePort}`);
  }
}

const [key, cert] = process.argv.slice(2).map((file) => readFileSync(file));
const servers = [
  createHttpServer(serve).listen(8080),
  createHttpsServer({ key, cert }, serve).listen(8443),
  createServer({ allowHalfOpen: true }, (socket) => {
    const hash = createHash('sha256');
    socket.on('error', () => {});
    socket.on('data', (chunk) => hash.update(chunk));
    socket.on('end', () => socket.end(hash.digest('hex')));
  }).listen(7000),
  createServer({ allowHalfOpen: true }, (socket) => {
    pipeline(socket, socket, () => socket.resetAndDestroy());
  }).listen(7001),
];
await Promise.all(servers.map((server) => once(server, 'listening')));
process.stdout.write('ready\n');
