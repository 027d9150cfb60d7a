/**
 * What holds of every connection and of the endpoint after each segment, whatever came: a naive check of the fields.
 * @module
 */
import type { ControlBlock } from '../../../src/tcp/control-block.ts';
import type { TcpEndpoint } from '../../../src/tcp/endpoint.ts';
import { TcpState } from '../../../src/tcp/state.ts';

/** What a connection has reached; none of it goes back. */
interface Reached {
  /** Whether the peer's numbers are known: those of the window mean nothing before. */
  isSynchronized: boolean;
  edge: number;
  next: number;
  sndUna: number;
  sndNxt: number;
}

/** Watches the connections of an endpoint. */
export class Watch {
  readonly endpoint: TcpEndpoint;
  readonly #reached = new Map<ControlBlock, Reached>();

  constructor(endpoint: TcpEndpoint) {
    this.endpoint = endpoint;
    const { host } = endpoint;
    const { update } = host;
    // Each block passes here when its connection begins.
    host.update = (block: ControlBlock): void => {
      if (!this.#reached.has(block) && block.state !== TcpState.Closed) {
        const { window, sndUna, sndNxt } = block;
        const { edge, next } = window;
        this.#reached.set(block, { isSynchronized: false, edge, next, sndUna, sndNxt });
      }
      update.call(host, block);
    };
  }

  /** The connections that have not ended. */
  get blocks(): Iterable<ControlBlock> {
    return this.#reached.keys();
  }

  /** The packet that was read last was not taken: its numbers count as unsent again. */
  onRefused(): void {
    for (const [block, reached] of this.#reached) reached.sndNxt = block.sndNxt;
  }

  /** Returns what does not hold, or undefined. */
  check(): string | undefined {
    for (const [block, reached] of this.#reached) {
      const fault = faultOf(block) ?? movedBack(block, reached);
      if (fault !== undefined) return `${fault} (state ${block.state})`;
      if (block.state === TcpState.Closed || block.state === TcpState.TimeWait) {
        this.#reached.delete(block);
      }
    }
    return this.#faultOfEndpoint();
  }

  #faultOfEndpoint(): string | undefined {
    const { memory, limits, sizes } = this.endpoint;
    if (!(memory.used >= 0 && memory.used <= memory.limit)) return `${memory.used} bytes are used`;
    const small = 2 * SMALL_SLAB * (this.#reached.size + KEPT_AFTER_END);
    if (!(memory.usedSmall >= 0 && memory.usedSmall <= small)) return `${memory.usedSmall} bytes`;
    if (sizes.connections > limits.connections) return `${sizes.connections} connections`;
    if (sizes.halfOpen > limits.halfOpen) return `${sizes.halfOpen} half-open connections`;
    if (sizes.timeWait > limits.timeWait) return `${sizes.timeWait} in TIME-WAIT`;
    if (sizes.timers > sizes.connections) {
      return `${sizes.timers} timers for ${sizes.connections} connections`;
    }
    return undefined;
  }
}

function faultOf(block: ControlBlock): string | undefined {
  const { sndUna, sndNxt, send, window, receive, congestion, rtt, loss, host } = block;
  if (block.state === TcpState.Closed || block.state === TcpState.TimeWait) {
    return send.length === 0 ? undefined : 'an ended connection holds bytes to send';
  }
  const outstanding = (sndNxt - sndUna) | 0;
  if (outstanding < 0) return `SND.UNA ${sndUna} is behind SND.NXT ${sndNxt}`;
  // SYN and FIN have numbers, but no bytes.
  if (outstanding > send.length + 2) return `${outstanding} outstanding of ${send.length}`;
  if (send.length > host.maxBufferBytes) return `${send.length} bytes to send`;
  if (receive.available + receive.outOfOrder > host.maxBufferBytes + WINDOW_SLACK) {
    return `${receive.available} and ${receive.outOfOrder} bytes received`;
  }
  if (receive.available < 0 || receive.outOfOrder < 0) return 'fewer than no bytes';
  if (window.size < 0) return `RCV.WND is ${window.size}`;
  if (receive.outOfOrder > window.size) return `${receive.outOfOrder} bytes behind the window`;
  if (!(congestion.cwnd >= 1 && congestion.cwnd < 2 ** 31)) return `cwnd is ${congestion.cwnd}`;
  if (!(congestion.ssthresh > 0)) return `ssthresh is ${congestion.ssthresh}`;
  if (!(rtt.rtoMs >= 200 && rtt.rtoMs <= 120_000)) return `RTO is ${rtt.rtoMs} ms`;
  if (!(rtt.srttMs >= 0 && rtt.srttMs < 1e9)) return `SRTT is ${rtt.srttMs} ms`;
  if (!(loss.inFlight >= 0)) return `${loss.inFlight} bytes in flight`;
  if (loss.isEmpty !== (loss.inFlight === 0) && loss.isEmpty) return 'nothing is in flight';
  if (Number.isNaN(loss.deadline)) return 'the deadline is no number';
  return undefined;
}

function movedBack(block: ControlBlock, reached: Reached): string | undefined {
  const { window, sndUna, sndNxt } = block;
  if (reached.isSynchronized) {
    if (((window.edge - reached.edge) | 0) < 0) return 'the right edge moved left';
    if (((window.next - reached.next) | 0) < 0) return 'RCV.NXT went back';
  }
  if (((sndUna - reached.sndUna) | 0) < 0) return 'SND.UNA went back';
  if (((sndNxt - reached.sndNxt) | 0) < 0) return 'SND.NXT went back';
  reached.isSynchronized = block.state > TcpState.SynReceived;
  reached.edge = window.edge;
  reached.next = window.next;
  reached.sndUna = sndUna;
  reached.sndNxt = sndNxt;
  return undefined;
}

const SMALL_SLAB = 4096;
/** The window may reach beyond the buffer by what its shift count rounds off. */
const WINDOW_SLACK = 4096;
/** Ended connections whose last bytes nobody has read. */
const KEPT_AFTER_END = 64;
