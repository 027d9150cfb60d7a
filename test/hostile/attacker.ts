/**
 * The attacker: a TLS client with the certificate of site-a, which writes frames by hand.
 * @module
 */
import { connect as connectTcp, type Socket } from 'node:net';
import type { ConnectionOptions } from 'node:tls';
import { CloseCode, type Credentials, FrameType } from '../../src/tunnel/index.ts';
import { frameBytes, HELLO, RawPeer } from '../support/raw-peer.ts';

/** Connects, and sends nothing yet. */
export function connect(
  port: number,
  credentials: Partial<Credentials>,
  options: ConnectionOptions & { readonly localAddress?: string | undefined } = {}
): RawPeer {
  const peer = RawPeer.dial(port, credentials, { localAddress: ATTACKER, ...options } as object);
  peer.socket.setNoDelay(true);
  return peer;
}

/** Opens a tunnel; waits if its site has used up its rate of tunnels. */
export async function openTunnel(
  port: number,
  credentials: Credentials,
  hello: object = HELLO,
  options: ConnectionOptions & { readonly localAddress?: string | undefined } = {}
): Promise<RawPeer> {
  for (;;) {
    const peer = connect(port, credentials, options);
    peer.send(FrameType.Hello, hello);
    const answer = await answerOf(peer);
    if (answer === 'welcome') return peer;
    await leave(peer);
    if (answer !== CloseCode.TooMany) {
      throw new Error(`the attacker got no tunnel: ${answer ?? peer.error?.message}`);
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
}

/** Returns the answer to a HELLO: `welcome`, the code of a CLOSE, or undefined if the connection just ends. */
export function answerOf({ socket }: RawPeer): Promise<string | undefined> {
  return new Promise((resolve) => {
    let bytes = Buffer.alloc(0);
    const take = (chunk: Buffer): void => {
      bytes = Buffer.concat([bytes, chunk]);
      const end = bytes.length < 4 ? Infinity : 4 + bytes.readUIntBE(1, 3);
      if (bytes.length < end) return;
      const isClose = bytes[0] === FrameType.Close;
      resolve(isClose ? JSON.parse(bytes.subarray(4, end).toString()).code : 'welcome');
    };
    socket.on('data', take);
    socket.once('close', () => resolve(undefined));
  });
}

export function packetFrame(packet: Uint8Array): Buffer {
  return frameBytes(FrameType.Packet, Buffer.from(packet));
}

/** Writes everything, as fast as the peer accepts it; ends early when the connection does. */
export async function pour(
  { socket }: RawPeer,
  bytes: () => Buffer,
  times: number
): Promise<number> {
  let taken = 0;
  for (; taken < times && !socket.destroyed && socket.writable; taken++) {
    if (socket.write(bytes())) {
      if (taken % YIELD_EVERY === 0) await new Promise(setImmediate);
      continue;
    }
    await new Promise<void>((resolve) => {
      const done = () => {
        socket.off('drain', done);
        socket.off('close', done);
        resolve();
      };
      socket.on('drain', done);
      socket.on('close', done);
    });
  }
  return taken;
}

/**
 * Returns why the gateway has ended the connection: the code of its CLOSE, undefined if it sent none, or `still up` if
 * it does not end it.
 */
export async function ended(peer: RawPeer): Promise<string | undefined> {
  let hasEnded = true;
  const timer = setTimeout(() => {
    hasEnded = false;
    peer.socket.destroy();
  }, END_DEADLINE_MS);
  const close = await peer.json(FrameType.Close);
  clearTimeout(timer);
  peer.socket.destroy();
  await peer.closed;
  return hasEnded ? (close?.code as string | undefined) : 'still up';
}

/** Waits until the gateway has processed everything that was sent. */
export async function settled(peer: RawPeer): Promise<void> {
  peer.send(FrameType.Ping, Buffer.from('settled?'));
  for (;;) {
    const pong = await peer.frame(FrameType.Pong);
    if (pong === undefined || pong.toString() === 'settled?') return;
  }
}

export async function leave(peer: RawPeer): Promise<void> {
  peer.socket.destroy();
  await peer.closed;
}

/** Opens TCP connections that stay open, from one address each or all from one; waits for none of them. */
export function halfOpen(
  port: number,
  count: number,
  addressOf: (i: number) => string,
  onConnect: (socket: Socket) => void = () => {}
): Socket[] {
  return Array.from({ length: count }, (_, i) => {
    const socket = connectTcp({ port, host: '127.0.0.1', localAddress: addressOf(i) });
    socket.on('error', () => {});
    socket.once('connect', () => onConnect(socket));
    return socket;
  });
}

/** The default address of the attacker. */
const ATTACKER = '127.0.0.66';
const YIELD_EVERY = 64;
const PAUSE_MS = 250;
/** Less than the time that the gateway waits for a silent peer. */
const END_DEADLINE_MS = 8_000;
