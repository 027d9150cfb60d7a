/**
 * `sockets-relay-child.ts HOST PORT`: the relay of `SocketsScene`. Its parent sends it a server that listens outside of
 * this namespace; each connection goes on to HOST and PORT in this namespace. The message `cut` ends all connections,
 * and those that come are ended at once, until the message `mend`. Each message is answered by itself.
 */
import { connect, type Server, type Socket } from 'node:net';
import { pipeline } from 'node:stream';

const [host, port] = process.argv.slice(2);
const sockets = new Set<Socket>();
let isCut = false;

function keep(socket: Socket): void {
  sockets.add(socket);
  socket.setNoDelay();
  socket.on('error', () => {});
  socket.on('close', () => sockets.delete(socket));
}

function relay(near: Socket): void {
  keep(near);
  if (isCut) {
    near.destroy();
    return;
  }
  const far = connect(Number(port), host);
  keep(far);
  // What is wrong with one side ends the other one: each pipeline destroys both of its ends.
  pipeline(near, far, () => {});
  pipeline(far, near, () => {});
}

process.on('message', (message, server) => {
  if (message === 'listen') (server as Server).on('connection', relay);
  isCut = message === 'cut';
  if (isCut) for (const socket of sockets) socket.destroy();
  process.send!(message);
});
process.on('disconnect', () => process.exit());
