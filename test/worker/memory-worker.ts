/**
 * The program of a worker whose device is in memory: like `worker-main.ts`, without the privilege to create a TUN.
 */
import { MemoryDevice } from '../../src/device/index.ts';
import { LocalWorker } from '../../src/worker/local-worker.ts';
import { Rpc } from '../../src/worker/rpc.ts';
import { HOST_NOTIFICATIONS, type WorkerHost } from '../../src/worker/worker.ts';

const rpc: Rpc<WorkerHost> = new Rpc<WorkerHost>(process, HOST_NOTIFICATIONS);
rpc.serve(new LocalWorker(rpc.remote, async () => MemoryDevice.pair()[0]));
process.on('disconnect', () => process.exit(0));
