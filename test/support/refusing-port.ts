/**
 * Ports of 127.0.0.1 at which nobody listens, and which stay so: the test itself has them, as one end of a
 * connection. A port that was free a moment ago may have been taken by any other program meanwhile.
 * @module
 */
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';

export interface RefusingPort {
  readonly port: number;
  /** Gives the port back. */
  close(): void;
}

/** A port that refuses TCP connections: the near end of a connection to the test itself has it. */
export async function refusingTcpPort(): Promise<RefusingPort> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const near = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [[far]] = (await Promise.all([once(server, 'connection'), once(near, 'connect')])) as [
    [Socket],
    unknown,
  ];
  return {
    port: near.localPort!,
    close: () => {
      near.destroy();
      far.destroy();
      server.close();
    },
  };
}

/** A port whose datagrams are answered by ICMP: the socket that has it takes those of one peer only. */
export async function refusingUdpPort(): Promise<RefusingPort> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1');
  await once(socket, 'listening');
  socket.connect(DISCARD_PORT, '127.0.0.1');
  await once(socket, 'connect');
  return { port: socket.address().port, close: () => socket.close() };
}

const DISCARD_PORT = 9;
