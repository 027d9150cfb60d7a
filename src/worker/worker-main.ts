/**
 * The program of a worker in a process of its own: a `LocalWorker` that a host in another process calls. It ends with
 * its host.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { LinuxTun } from '../device/index.ts';
import { LocalWorker } from './local-worker.ts';
import { Rpc } from './rpc.ts';
import { HOST_NOTIFICATIONS, type WorkerHost } from './worker.ts';

if (process.send === undefined) {
  log('this program is started by virtual-presence, and cannot be started by hand');
  process.exit(1);
}
// A terminal or a service manager sends these to the whole process group; the host closes its workers itself.
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {});

let interfaceName: string | undefined;

const rpc: Rpc<WorkerHost> = new Rpc<WorkerHost>(process, HOST_NOTIFICATIONS);
rpc.serve(
  new LocalWorker(rpc.remote, ({ tun }) => {
    interfaceName = tun!.name;
    // The interface survives when this process is killed, and its routes with it.
    return LinuxTun.open({ ...tun!, persist: true });
  })
);

process.on('disconnect', () => {
  // The host has closed this worker, or has ended: the interface is not needed any more.
  if (interfaceName !== undefined) removeInterface(interfaceName);
  process.exit(0);
});
process.on('uncaughtException', (error) => {
  log(`process ended by an uncaught exception: ${error.stack}`);
  process.exit(1);
});

function removeInterface(name: string): void {
  if (!existsSync(`/proc/sys/net/ipv4/conf/${name}`)) return;
  try {
    execFileSync('ip', ['link', 'delete', name], { stdio: 'pipe' });
  } catch {
    log(`the interface ${name} could not be removed: remove it with "ip link delete ${name}"`);
  }
}

/** Writes to standard error, which the process shares with its host. */
function log(line: string): void {
  process.stderr.write(`${new Date().toISOString()} ${line}\n`);
}
