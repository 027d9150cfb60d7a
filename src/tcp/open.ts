/**
 * Makes the control block of a new connection.
 * @module
 */
import { TcpConnection, type TcpOwner } from './connection.ts';
import { type BlockHost, ControlBlock } from './control-block.ts';
import type { Flow } from './flow.ts';
import type { HalfOpen } from './half-open.ts';
import { acceptHandshake } from './handshake.ts';
import { listenerOf } from './listener.ts';
import { WINDOW_SCALE } from './receive-window.ts';
import type { SegmentReader } from './segment.ts';
import { seqAdd } from './sequence.ts';
import { TcpState } from './state.ts';

/** Begins a connection that the application opens. Its SYN offers all options and is due at once. */
export function openActive(
  flow: Flow,
  host: BlockHost,
  iss: number,
  timestampOffset: number,
  owner: TcpOwner
): ControlBlock {
  const block = newBlock(flow, host, iss, owner, undefined);
  block.hasScale = true;
  block.hasSack = true;
  block.timestamps.isUsed = true;
  block.timestamps.offset = timestampOffset;
  block.window.scale = WINDOW_SCALE;
  block.state = TcpState.SynSent;
  block.isSynDue = true;
  block.synAt = host.now + block.rtt.rtoMs;
  return block;
}

/** Begins a connection that a peer has opened; `segment` completes the handshake. */
export function openPassive(
  opening: HalfOpen,
  host: BlockHost,
  segment: SegmentReader
): ControlBlock {
  const block = newBlock(opening.flow, host, opening.iss, undefined, opening.group);
  block.timestamps.offset = opening.tsOffset;
  block.listener = opening.listener;
  const listener = listenerOf(opening);
  if (listener !== undefined) listener.waiting++;
  acceptHandshake(block, opening, segment, host.now);
  return block;
}

function newBlock(
  flow: Flow,
  host: BlockHost,
  iss: number,
  owner: TcpOwner | undefined,
  group: string | undefined
): ControlBlock {
  const block = new ControlBlock(flow, host, group);
  block.connection = new TcpConnection(block, owner);
  block.progressAt = host.now;
  block.iss = iss;
  block.sndUna = iss;
  block.sndNxt = seqAdd(iss, 1);
  block.sndFront = block.sndNxt;
  block.smallEnd = block.sndNxt;
  return block;
}
