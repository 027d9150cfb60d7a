/**
 * The program of a worker that has a process of its own: a `LocalWorker` that a host in another process calls. It
 * ends with its host.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { LinuxTun } from '../device/index.ts';
import { LocalWorker } from './local-worker.ts';
import { Rpc } from './rpc.ts';
import { HOST_NOTIFICATIONS, type WorkerHost } from './worker.ts';

if (process.send === undefined) {
  log('this program is a part of virtual-presence, which starts it by itself');
  process.exit(1);
}
// A terminal or a service manager sends these to the whole group; the host tells a worker in its own way.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

let interfaceName: string | undefined;

const rpc: Rpc<WorkerHost> = new Rpc<WorkerHost>(process, HOST_NOTIFICATIONS);
rpc.serve(
  new LocalWorker(rpc.remote, ({ tun }) => {
    interfaceName = tun!.name;
    // The interface is kept when this process is killed, so that its routes are.
    return LinuxTun.open({ ...tun!, persist: true });
  })
);

process.on('disconnect', () => {
  // The host has closed this worker, or has ended without a word: nobody needs the interface any more.
  if (interfaceName !== undefined) removeInterface(interfaceName);
  process.exit(0);
});
process.on('uncaughtException', (error) => {
  log(`process ended by a fault: ${error.stack}`);
  process.exit(1);
});

function removeInterface(name: string): void {
  if (!existsSync(`/proc/sys/net/ipv4/conf/${name}`)) return;
  try {
    execFileSync('ip', ['link', 'delete', name], { stdio: 'pipe' });
  } catch {
    log(`the interface ${name} is left behind`);
  }
}

/** Standard error is the host's. */
function log(line: string): void {
  process.stderr.write(`${new Date().toISOString()} ${line}\n`);
}
