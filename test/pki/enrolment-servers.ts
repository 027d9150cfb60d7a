/**
 * Enrolment servers, with a certificate of the CA and without one, and functions that send requests to them.
 * @module
 */
import { once } from 'node:events';
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import tls, { type TLSSocket } from 'node:tls';
import { afterEach, expect } from 'vitest';
import {
  type CertificateAuthority,
  EnrolmentServer,
  type EnrolmentServerOptions,
  type GatewayIdentity,
} from '../../src/pki/index.ts';
import { CLOUD } from '../support/certificates.ts';
import { refusingTcpPort } from '../support/refusing-port.ts';
import { newRequest } from './fixtures.ts';

export const HOST = '127.0.0.1';
/** Called after each test. */
export const closers: (() => Promise<unknown> | unknown)[] = [];
afterEach(async () => {
  for (const close of closers.splice(0)) await close();
});

export async function serve(
  authority: CertificateAuthority,
  options: Partial<EnrolmentServerOptions> = {}
): Promise<{ server: EnrolmentServer; port: number; endpoint: string }> {
  const server = new EnrolmentServer({ authority, ...options });
  const { port } = await server.listen({ host: HOST, port: 0 });
  closers.push(() => server.close());
  return { server, port, endpoint: `https://${HOST}:${port}` };
}

/** A TLS server with any key and certificate that records what it receives. */
export async function impostor(
  key: string,
  cert: string,
  answer?: string,
  options: tls.TlsOptions = {}
): Promise<{ endpoint: string; received: string[] }> {
  const received: string[] = [];
  const server = tls.createServer({ key, cert, ...options }, (socket) => {
    socket.on('error', () => {});
    socket.on('data', (data) => {
      received.push(data.toString());
      if (answer !== undefined) socket.end(answer);
    });
  });
  server.listen(0, HOST);
  await once(server, 'listening');
  closers.push(() => server.close());
  return { endpoint: `https://${HOST}:${(server.address() as AddressInfo).port}`, received };
}

/** A server with a certificate of the CA that sends the given answer. */
export async function withCertificate(
  authority: CertificateAuthority,
  answer: string,
  identity: GatewayIdentity = CLOUD
): Promise<{ endpoint: string; received: string[] }> {
  const { privateKeyPem, csrPem } = newRequest();
  const { certificatePem } = await authority.issue(csrPem, identity);
  return impostor(privateKeyPem, certificatePem + authority.certificatePem, answer);
}

export function httpAnswer(status: number, body: unknown): string {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return `HTTP/1.1 ${status} X\r\nContent-Length: ${Buffer.byteLength(text)}\r\n\r\n${text}`;
}

/** A port that refuses connections until the test ends. */
export async function closedPort(): Promise<number> {
  const nobody = await refusingTcpPort();
  closers.push(() => nobody.close());
  return nobody.port;
}

export async function connect(port: number): Promise<TLSSocket> {
  const socket = tls.connect({ host: HOST, port, rejectUnauthorized: false });
  socket.on('error', () => {});
  await once(socket, 'secureConnect');
  return socket;
}

export async function request(
  port: number,
  options: http.RequestOptions,
  body?: string
): Promise<{ status: number | undefined; body: { code: string; message: string } }> {
  const socket = await connect(port);
  const sent = http.request({ createConnection: () => socket, ...options });
  sent.on('error', () => {});
  sent.end(body);
  const [response] = (await once(sent, 'response')) as [http.IncomingMessage];
  let text = '';
  for await (const chunk of response) text += chunk;
  return { status: response.statusCode, body: JSON.parse(text) };
}

export const post = (port: number, body: string): ReturnType<typeof request> =>
  request(port, { method: 'POST', path: '/v1/enrol' }, body);
export const refused = (code: string): unknown =>
  expect.objectContaining({ code: `ERR_PRESENCE_${code}` });
