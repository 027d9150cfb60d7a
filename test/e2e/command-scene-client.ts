/**
 * A program that sends packets from a host of the scene. Each line of its input is an `Attempt` in JSON, and each line of
 * its output is an `Answer`. TCP sends the line `whoami` and takes what comes; UDP sends `whoami` and takes an echo.
 * An attempt is repeated until it is answered or its time is over.
 * @module
 */
import { createSocket } from 'node:dgram';
import { lookup } from 'node:dns/promises';
import { once } from 'node:events';
import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { text } from 'node:stream/consumers';
import { setTimeout as delay } from 'node:timers/promises';

export interface Attempt {
  readonly id: number;
  readonly protocol: 'tcp' | 'udp';
  /** A name, as the DNS of the site has it. */
  readonly host: string;
  readonly port: number;
  /** The address of the host to send from. */
  readonly source: string;
  readonly withinMs: number;
}

export interface Answer {
  readonly id: number;
  /** Where the packets went to; absent if the name had no address. */
  readonly address?: string;
  /** What the service has answered; absent if it has not. */
  readonly answer?: string;
}

/** Long enough for the second SYN of a connection. */
const TRY_MS = 1_500;
const PAUSE_MS = 50;

for await (const line of createInterface({ input: process.stdin })) {
  void attempt(JSON.parse(line) as Attempt).then((answer) => {
    process.stdout.write(`${JSON.stringify(answer)}\n`);
  });
}

async function attempt({ id, protocol, host, port, source, withinMs }: Attempt): Promise<Answer> {
  const end = performance.now() + withinMs;
  let address: string | undefined;
  do {
    const leftMs = Math.min(TRY_MS, Math.max(1, end - performance.now()));
    try {
      ({ address } = await lookup(host, 4));
      const send = protocol === 'tcp' ? sendTcp : sendUdp;
      return { id, address, answer: await send(address, port, source, leftMs) };
    } catch {
      await delay(PAUSE_MS);
    }
  } while (performance.now() < end);
  return { id, ...(address !== undefined && { address }) };
}

async function sendTcp(host: string, port: number, source: string, ms: number): Promise<string> {
  const socket = connect({ host, port, localAddress: source });
  socket.setTimeout(ms, () => socket.destroy(new Error('no answer')));
  try {
    socket.end('whoami\n');
    return (await text(socket)).trim();
  } finally {
    socket.destroy();
  }
}

async function sendUdp(host: string, port: number, source: string, ms: number): Promise<string> {
  const socket = createSocket('udp4');
  try {
    socket.bind(0, source);
    await once(socket, 'listening');
    socket.send('whoami', port, host);
    const [message] = await once(socket, 'message', { signal: AbortSignal.timeout(ms) });
    return String(message);
  } finally {
    socket.close();
  }
}
