/**
 * A process with an open TUN, for `tun-process.test.ts`. It opens a TUN with the wake-up of the first argument,
 * runs the scene of the second, and prints one word for each thing that happened.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { writeSync } from 'node:fs';
import { isMainThread, parentPort, Worker } from 'node:worker_threads';
import { LinuxTun, type WakeupKind } from '../../src/device/index.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../../src/packet/virtio.ts';

const [wakeup, scene] = process.argv.slice(2) as [WakeupKind, string];
const tun = await LinuxTun.open({ name: isMainThread ? 'child0' : 'child1', wakeup });
const PING = 'ping -c 1 -W 0.01 10.77.0.2 >/dev/null 2>&1';
const buffer = Buffer.alloc(VNET_HEADER_LENGTH + MAX_PACKET_LENGTH);

/** Prints synchronously, so that nothing is lost if the process crashes directly after. */
function say(word: string): void {
  writeSync(1, `${word}\n`);
}

/** Makes the kernel send one packet to the TUN, an echo request that nobody answers. */
function provoke(): void {
  execFileSync('sh', ['-c', `${PING} || true`]);
}

/** Does the same a moment later, from another process for which this one does not wait. */
function provokeLater(): void {
  execFileSync('sh', ['-c', `(sleep 0.3; ${PING}) >/dev/null 2>&1 &`]);
}

if (isMainThread) process.on('exit', (code) => say(`exit ${code}`));
execFileSync('ip', ['address', 'add', '10.77.0.1/24', 'dev', tun.name]);

const scenes: Record<string, () => void> = {
  'exit while open'() {
    tun.start(() => {});
    setImmediate(() => process.exit(0));
  },
  'exit within delivery'() {
    tun.start(() => process.exit(0));
    provoke();
  },
  'close and end'() {
    tun.start(() => {});
    setImmediate(async () => {
      await tun.close();
      say('closed');
    });
  },
  'open, never started'() {
    say('opened');
  },
  'kept alive'() {
    tun.start(() => {
      tun.read(buffer, 0);
      say('read');
      tun.pause();
    });
    // Only the TUN keeps the process alive until then.
    provokeLater();
  },
  'promises and timers'() {
    let events = 0;
    let ticksOfLast = 0;
    tun.start(() => {
      // Nothing is read, so the next call comes in the next turn.
      events++;
      if (events > 1) say(`ticks ${ticksOfLast}`);
      ticksOfLast = 0;
      process.nextTick(() => ticksOfLast++);
      queueMicrotask(() => ticksOfLast++);
      Promise.resolve().then(() => ticksOfLast++);
      if (events === 4) {
        tun.pause();
        // No other event is due, and neither may wait for one.
        process.nextTick(() => say('tick'));
        queueMicrotask(() => say('microtask'));
        setTimeout(() => say('timer'), 1);
      }
    });
    provoke();
  },
  'reader throws'() {
    let events = 0;
    process.on('uncaughtException', (error) => say(`uncaught ${error.message}`));
    tun.start(() => {
      events++;
      if (events === 3) tun.pause();
      throw new Error(`event${events}`);
    });
    provoke();
  },
  'reader throws, nobody listens'() {
    tun.start(() => {
      throw new Error('reader');
    });
    provoke();
  },
  'worker terminated'() {
    // Node 20 does not pass a loader to workers.
    const loader = JSON.stringify(import.meta.resolve('tsx/esm/api'));
    const script = `import(${loader}).then(({ register }) => {
      register();
      return import(${JSON.stringify(import.meta.url)});
    });`;
    const worker = new Worker(script, { eval: true, argv: [wakeup, 'within a worker'] });
    worker.on('message', async (kind) => {
      say(`started ${kind}`);
      await worker.terminate();
      say('terminated');
    });
  },
  'within a worker'() {
    tun.start(() => {});
    parentPort!.postMessage(tun.wakeup);
  },
  'interface deleted'() {
    tun.start(() => {});
    execFileSync('ip', ['link', 'delete', 'child0']);
  },
};

scenes[scene]!();
