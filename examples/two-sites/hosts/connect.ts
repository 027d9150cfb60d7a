/**
 * `connect HOST PORT [SOURCE]`: connects by name and prints what it receives; gives up after two seconds. It uses the
 * SOCKS5 proxy whose URL is in `VP_DEMO_PROXY` of the environment, if there is one.
 * @module
 */
import { connect, type Socket } from 'node:net';
import { connectBySocks } from './socks5.ts';

const [host, port, localAddress] = process.argv.slice(2);
const { VP_DEMO_PROXY: proxy } = process.env;

function fail(error: NodeJS.ErrnoException): never {
  process.stdout.write(`${error.code}\n`);
  process.exit(2);
}

function print(socket: Socket): void {
  socket.on('error', fail);
  socket.on('data', (chunk) => process.stdout.write(chunk));
  socket.on('end', () => process.exit(0));
  process.stderr.write('connected\n');
  timer.refresh();
}

const timer = setTimeout(() => {
  process.stdout.write('timeout\n');
  process.exit(3);
}, 2000);
if (proxy !== undefined) {
  print(await connectBySocks(proxy, host!, Number(port)).catch(fail));
} else {
  const source = localAddress === undefined ? {} : { localAddress };
  const socket = connect({ host: host!, port: Number(port), family: 4, ...source });
  socket.once('error', fail);
  socket.once('connect', () => print(socket));
}
