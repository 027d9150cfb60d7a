/**
 * A stream of packets through this process while it does other work. A thread sends numbered datagrams at a steady pace
 * over a UDP socket; here each is a packet of a client, which the translator rewrites; the thread gets it back. The
 * kernel keeps a few hundred packets, as it does for a TUN, and drops what comes while that queue is full.
 * @module
 */
import { createSocket, type Socket } from 'node:dgram';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import {
  type PacketTranslator,
  TRANSLATION_HEADROOM,
  Verdict,
} from '../../src/translator/index.ts';
import { VNET } from '../../test/support/vnet.ts';
import type { Command, Passage, Route } from './stream-source.ts';

export class Stream {
  readonly #socket: Socket;
  readonly #worker: Worker;
  readonly #refused: { count: number };

  private constructor(socket: Socket, worker: Worker, refused: { count: number }) {
    this.#socket = socket;
    this.#worker = worker;
    this.#refused = refused;
  }

  /**
   * @param ingress the client's realm
   * @param from the client's address, and `to` that of the presence that it sends to
   */
  static async open(
    translator: PacketTranslator,
    ingress: string,
    route: Pick<Route, 'from' | 'to' | 'port'>
  ): Promise<Stream> {
    const socket = createSocket('udp4');
    socket.bind(0, '127.0.0.1');
    await once(socket, 'listening');
    const frame = Buffer.alloc(2048);
    const refused = { count: 0 };
    socket.on('message', (packet, { port, address }) => {
      const vnet = TRANSLATION_HEADROOM;
      packet.copy(frame, vnet);
      const end = vnet + packet.length;
      const realm = translator.realm(ingress);
      const verdict = translator.translate(realm, frame, vnet + VNET, end, vnet, vnet);
      if (verdict === Verdict.Forward) {
        socket.send(Buffer.from(frame.subarray(translator.vnet, translator.end)), port, address);
      } else {
        refused.count++;
      }
    });
    const source = new URL('stream-source.js', import.meta.url);
    const workerData: Route = { ...route, gateway: socket.address().port };
    const worker = new Worker(fileURLToPath(source), { workerData });
    await once(worker, 'online');
    return new Stream(socket, worker, refused);
  }

  start(): void {
    this.#worker.postMessage('start' satisfies Command);
  }

  /** Stops sending, waits for what is under way, and returns how all packets so far have passed. */
  async stop(): Promise<Passage> {
    this.#worker.postMessage('stop' satisfies Command);
    const [passage] = (await once(this.#worker, 'message')) as [Passage];
    const { count } = this.#refused;
    if (count > 0) throw new Error(`${count} packets of the stream were refused`);
    return passage;
  }

  async close(): Promise<void> {
    this.#socket.close();
    await this.#worker.terminate();
  }
}
