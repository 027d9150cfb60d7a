/**
 * `console NAME PORT...`: sends its name and the address of the client to each connection.
 * @module
 */
import { serve } from './serve.ts';

const [name, ...ports] = process.argv.slice(2);
for (const port of ports.map(Number)) {
  await serve(port, (socket, client) => {
    socket.end(`${JSON.stringify({ name, port, client })}\n`);
  });
}
process.stdout.write('ready\n');
