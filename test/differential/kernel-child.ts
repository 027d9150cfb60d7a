/**
 * The process behind `KernelNat`, alone in a network namespace of its own: opens the TUNs `near`
 * and `far`, lets `ip` and `nft` set the namespace up as the first message says, then writes each
 * frame of a batch to a TUN and answers with what came out of both. Ends with its parent.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setTimeout } from 'node:timers/promises';
import { LinuxTun } from '../../src/device/index.ts';
import { MAX_PACKET_LENGTH, VNET_HEADER_LENGTH } from '../../src/packet/virtio.ts';
import type { ChildAnswer, ChildRequest, Passage, SetUp } from './kernel-nat.ts';

const FRAME_LENGTH = VNET_HEADER_LENGTH + MAX_PACKET_LENGTH;
const buffer = Buffer.alloc(FRAME_LENGTH);
const tuns: LinuxTun[] = [];

process.on('disconnect', () => process.exit());
process.on('message', async (request: ChildRequest) => {
  let answer: ChildAnswer;
  try {
    answer = 'batch' in request ? await pass(request.batch) : await setUp(request);
  } catch (error) {
    answer = { error: String(error) };
  }
  process.send!(answer);
});

async function setUp({ commands, settings, ruleset }: SetUp): Promise<ChildAnswer> {
  // Before the interfaces are made: no addresses, so no packets of the kernel's own.
  writeFileSync('/proc/sys/net/ipv6/conf/default/addr_gen_mode', '1');
  for (const name of ['near', 'far']) {
    tuns.push(await LinuxTun.open({ name, mtu: MAX_PACKET_LENGTH }));
  }
  for (const command of commands) execFileSync('ip', command.split(' '), { stdio: 'pipe' });
  execFileSync('nft', ['-f', '-'], { input: ruleset, stdio: 'pipe' });
  // After the rules: conntrack's are there once something needs conntrack.
  for (const [path, value] of Object.entries(settings)) {
    writeFileSync(`/proc/sys/net/${path}`, value);
  }
  await setTimeout(50);
  drain();
  return { passages: [], late: 0 };
}

/** The kernel takes a packet through while it is written: what comes out later is ignored. */
async function pass(batch: readonly (readonly [number, Uint8Array])[]): Promise<ChildAnswer> {
  const passages = batch.map(([from, frame]): Passage => {
    buffer.set(frame);
    const isTaken = tuns[from]!.write(buffer, 0, frame.length);
    const out = frames(tuns[1 - from]!);
    const back = frames(tuns[from]!);
    return { isTaken, out, back };
  });
  await setTimeout(2);
  return { passages, late: drain() };
}

function drain(): number {
  return tuns.reduce((count, tun) => count + frames(tun).length, 0);
}

/** What waits to be read, without the kernel's own multicast (MLD). */
function frames(tun: LinuxTun): Uint8Array[] {
  const found: Uint8Array[] = [];
  for (;;) {
    const length = tun.read(buffer, 0);
    if (length === 0) return found;
    const isIpv6 = buffer[VNET_HEADER_LENGTH]! >> 4 === 6;
    if (isIpv6 && buffer[VNET_HEADER_LENGTH + 24] === 0xff) continue;
    found.push(Uint8Array.prototype.slice.call(buffer, 0, length));
  }
}
