/** The watch of the fuzzer sees what does not hold; and forged segments are what they should be. */
import { describe, expect, test } from 'vitest';
import { connectionOf } from '../../../src/tcp/connection.ts';
import type { ControlBlock } from '../../../src/tcp/control-block.ts';
import { verifyChecksums } from '../../oracle/verify.ts';
import { Random } from '../../support/random.ts';
import { A4, B4, EndpointPair, TestOwner } from '../endpoint-pair.ts';
import { Frame } from './frame.ts';
import { Watch } from './invariants.ts';
import { mutate } from './mutations.ts';

/** A connection in ESTABLISHED, and the watch of its endpoint. */
function watched(): {
  readonly block: ControlBlock;
  readonly watch: Watch;
  readonly pair: EndpointPair;
} {
  const pair = new EndpointPair();
  const watch = new Watch(pair.a);
  const [client, server] = [new TestOwner(), new TestOwner()];
  pair.b.listen(undefined, 80, server, 1);
  client.connection = pair.a.connect(A4, 0, B4, 80, client);
  client.send(Buffer.alloc(100));
  pair.run();
  const [block] = [...watch.blocks];
  expect(watch.check()).toBeUndefined();
  return { block: block!, watch, pair };
}

describe('the watch sees', () => {
  test.each<[string, (block: ControlBlock) => void]>([
    ['a right edge that moved left', (block) => block.window.edge--],
    ['RCV.NXT that went back', (block) => block.window.next--],
    ['SND.UNA behind SND.NXT', (block) => block.sndUna++],
    ['more outstanding than written', (block) => (block.sndNxt += 1000)],
    ['a congestion window that is no number', (block) => (block.congestion.cwnd = Number.NaN)],
    ['an RTO of 0', (block) => (block.rtt.rtoMs = 0)],
  ])('%s', (_, spoil) => {
    const { block, watch } = watched();
    spoil(block);
    expect(watch.check()).toBeDefined();
  });

  test('bytes beyond the limit of the memory', () => {
    const { watch, pair } = watched();
    pair.a.memory.used = pair.a.memory.limit + 1;
    expect(watch.check()).toContain('bytes are used');
  });
});

test('most forged segments have right checksums', () => {
  const { block, pair } = watched();
  pair.log = [];
  connectionOf(block).write(Buffer.alloc(3000));
  pair.run();
  const random = new Random(7);
  const frame = new Frame();
  let right = 0;
  for (let count = 0; count < 1000; count++) {
    frame.take(random.pick(pair.log).frame);
    mutate(random, frame, block);
    if (verifyChecksums(frame.bytes.slice(0, frame.length)).length === 0) right++;
  }
  expect(right).toBeGreaterThan(800);
});
