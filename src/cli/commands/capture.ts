/**
 * `capture -w FILE`: packets before and after their translation, as a pcapng file.
 *
 * At the first signal the gateway is asked for what is left, at the second nothing is waited for. The file always ends
 * with a whole block, also if the gateway goes away.
 * @module
 */
import { once } from 'node:events';
import { open } from 'node:fs/promises';
import type { Command } from 'commander';
import type { CaptureBody, CloudOperations } from '../../admin/index.ts';
import { parseCount, parseMilliseconds } from '../arguments.ts';
import { type Connection, connectCloud, type GatewayOptions, withGateway } from '../connection.ts';
import { CommandError, ExitCode, endedWith, usageError } from '../exit.ts';
import type { Io, Signal } from '../io.ts';
import { PcapngBlocks } from '../pcapng-blocks.ts';
import { countOf } from '../table.ts';

type CaptureOptions = GatewayOptions & {
  readonly from?: string;
  readonly to?: string;
  readonly oneWay?: boolean;
  readonly duration?: number;
  readonly maxBytes?: number;
  readonly snapLength?: number;
  readonly write: string;
};
type CaptureEnd = CaptureBody['from'];

/** Where the file goes to. */
interface Sink {
  readonly write: (bytes: Uint8Array) => Promise<void>;
  readonly close: () => Promise<void>;
}

export function registerCapture(program: Command, io: Io): void {
  const command = program
    .command('capture')
    .summary('capture packets for Wireshark')
    .description(
      'Captures packets before and after their translation, as a pcapng file for Wireshark and tcpdump, until the time ' +
        'is over, the file is full, or SIGINT (Ctrl-C) or SIGTERM comes. --from and --to take a site, hosts of a site such ' +
        'as site-a/10.0.0.0/28, or a service. Without them all packets are captured.'
    )
    .requiredOption('-w, --write <file>', 'the file; - is standard output, for a pipe')
    .option('--from <end>', 'one end of the flows')
    .option('--to <end>', 'the other end of the flows')
    .option('--one-way', 'only packets from --from to --to; default: the answers too')
    .option('--duration <duration>', 'at most 60s, the default', parseMilliseconds)
    .option('--max-bytes <number>', 'how long the file becomes at most; default 64 MiB', parseCount)
    .option('--snap-length <bytes>', 'how much of each packet, 20 to 256; default 256', parseCount);
  withGateway(command).action((options: CaptureOptions) => capture(io, options));
}

async function capture(io: Io, options: CaptureOptions): Promise<void> {
  const { write: path, oneWay, duration: durationMs, maxBytes, snapLength } = options;
  if (path === '') throw usageError('-w: the name of the file is empty');
  if (path === '-' && (io.stdout as { readonly isTTY?: boolean }).isTTY === true) {
    throw usageError('a capture is no text for a terminal: give -w a file, or make a pipe');
  }
  const cloud = connectCloud(io, options);
  const from = await endOf(cloud, options.from);
  const to = await endOf(cloud, options.to);
  const [finish, stop] = [new AbortController(), new AbortController()];
  const onSignal = (): void => {
    if (finish.signal.aborted) stop.abort();
    finish.abort();
  };
  for (const signal of SIGNALS) io.signals.on(signal, onSignal);
  try {
    const body = { from, to, oneWay, durationMs, maxBytes, snapLength };
    const call = { body, finish: finish.signal, signal: stop.signal };
    const pieces = await cloud.stream('capture', call).catch((error) => {
      if (finish.signal.aborted) throw endedWith(ExitCode.Failed);
      throw error;
    });
    const blocks = new PcapngBlocks();
    const isFile = path !== '-';
    const sink = isFile ? await fileSink(path) : streamSink(io, stop.signal);
    const fault = await copy(pieces, blocks, sink, stop.signal);
    const place = isFile ? path : 'standard output';
    const result = `${place} has ${countOf(blocks.bytes, 'byte')} with ${countOf(blocks.packets, 'packet')}`;
    if (fault !== undefined) {
      const message = `the capture has ended early, and ${result}: ${fault.message}`;
      throw new CommandError(ExitCode.Failed, message, { cause: fault });
    }
    const note = blocks.packets === 0 ? '' : ', each before and after its translation';
    (isFile ? io.stdout : io.stderr).write(`${result}${note}\n`);
  } finally {
    for (const signal of SIGNALS) io.signals.off(signal, onSignal);
  }
}

/** Copies a capture to its end, or until the signal, and returns why it has ended early. */
async function copy(
  pieces: AsyncIterable<Uint8Array>,
  blocks: PcapngBlocks,
  sink: Sink,
  signal: AbortSignal
): Promise<Error | undefined> {
  try {
    for await (const piece of pieces) await sink.write(blocks.take(piece));
  } catch (error) {
    return signal.aborted ? undefined : (error as Error);
  } finally {
    await sink.close();
  }
  return undefined;
}

async function fileSink(path: string): Promise<Sink> {
  const onFault = (cause: Error): never => {
    throw usageError(`cannot write ${path}: ${cause.message}`, { cause });
  };
  // Packets are for nobody but whoever captures them.
  const file = await open(path, 'w', 0o600).catch(onFault);
  return {
    write: async (bytes) => {
      await file.write(bytes);
    },
    close: () => file.close(),
  };
}

function streamSink({ stdout }: Io, signal: AbortSignal): Sink {
  return {
    write: async (bytes) => {
      if (!stdout.write(bytes)) await once(stdout, 'drain', { signal });
    },
    close: async () => {},
  };
}

/** A name is a site if there is such a site, and a service otherwise. */
async function endOf(
  cloud: Connection<CloudOperations>,
  text: string | undefined
): Promise<CaptureEnd> {
  if (text === undefined) return undefined;
  const at = text.indexOf('/');
  if (at >= 0) {
    const host = text.slice(at + 1).replace(/^\[(.*)\]/, '$1');
    return { site: text.slice(0, at), hosts: [host] };
  }
  const found = await cloud.find('getSite', { params: { site: text } });
  return found === undefined ? { service: text } : { site: text };
}

const SIGNALS: readonly Signal[] = ['SIGINT', 'SIGTERM'];
