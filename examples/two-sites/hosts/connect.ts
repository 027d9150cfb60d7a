/**
 * `connect HOST PORT [SOURCE]`: connects by name and prints what it receives; gives up after two seconds.
 * @module
 */
import { connect } from 'node:net';

const [host, port, localAddress] = process.argv.slice(2);
const socket = connect({
  host: host!,
  port: Number(port),
  family: 4,
  ...(localAddress === undefined ? {} : { localAddress }),
});
socket.setTimeout(2000, () => {
  process.stdout.write('timeout\n');
  process.exit(3);
});
socket.on('error', (error: NodeJS.ErrnoException) => {
  process.stdout.write(`${error.code}\n`);
  process.exit(2);
});
socket.on('data', (chunk) => process.stdout.write(chunk));
socket.on('connect', () => process.stderr.write('connected\n'));
socket.on('end', () => process.exit(0));
