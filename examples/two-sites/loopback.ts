/**
 * The loopback addresses of a scene without namespaces: a /16 that no other copy of the demo has.
 * @module
 */
import { once } from 'node:events';
import { createServer } from 'node:net';

/** 127.64.0.0/16 is where gateways publish services by default; 127.128.0.0/9 has clients of `loopbackSource`. */
const FIRST = 65;
const LAST = 127;
/** The port at the first address of the network, which says that it is in use. */
const CLAIM_PORT = 7439;

/** Returns for example `127.65`: the network 127.65.0.0/16 is ours as long as this process runs. */
export async function claimNetwork(): Promise<string> {
  const count = LAST - FIRST + 1;
  for (let i = 0; i < count; i++) {
    const network = `127.${FIRST + ((process.pid + i) % count)}`;
    const server = createServer((socket) => socket.destroy());
    try {
      await once(server.listen(CLAIM_PORT, `${network}.0.1`), 'listening');
      server.unref();
      return network;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw error;
    }
  }
  throw new Error(`port ${CLAIM_PORT} of every network from 127.${FIRST} to 127.${LAST} is taken`);
}
