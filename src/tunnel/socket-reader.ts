/**
 * Reads a TLS socket straight into memory of the caller, as the option `onread` of `net.connect` does. Node has that
 * option for the side that connects only, so its internal parts are set here by hand. Where a version of Node does not
 * have them, each piece comes in memory of its own, by `data` events, and is copied. (Without these pieces of 16 KiB,
 * their garbage and the copy, a gateway takes a fifth less time for a byte.)
 * @module
 */
import type { TLSSocket } from 'node:tls';

export interface Reader {
  /** Where the next bytes are put; read again after each `onFilled`. */
  readonly space: Buffer;
  onFilled(count: number): void;
  onPiece(piece: Buffer): void;
}

/** Begins to read. Returns whether the bytes go straight into the reader's space. */
export function readInto(socket: TLSSocket, reader: Reader): boolean {
  const parts = partsOf(socket);
  // Bytes that came before are in the stream already, and must be read from there.
  if (parts === undefined || socket.readableLength > 0) {
    socket.on('data', (piece) => reader.onPiece(piece));
    return false;
  }
  const { socket: inside, handle, symbols } = parts;
  inside[symbols.kBuffer] = reader.space;
  inside[symbols.kBufferGen] = () => reader.space;
  inside[symbols.kBufferCb] = (count: number) => {
    reader.onFilled(count);
    return true;
  };
  handle.useUserBuffer(reader.space);
  socket.resume();
  return true;
}

interface Parts {
  readonly socket: Record<symbol, unknown>;
  readonly handle: { useUserBuffer(buffer: Buffer): void };
  readonly symbols: Readonly<Record<(typeof NAMES)[number], symbol>>;
}

function partsOf(socket: TLSSocket): Parts | undefined {
  const inside = socket as unknown as Record<symbol, unknown>;
  const handle = (socket as { _handle?: Partial<Parts['handle']> })._handle;
  if (typeof handle?.useUserBuffer !== 'function') return undefined;
  const found = new Map(
    Object.getOwnPropertySymbols(socket).map((symbol) => [symbol.description, symbol])
  );
  // All must be there, and unused.
  if (NAMES.some((name) => !found.has(name) || inside[found.get(name)!] !== null)) return undefined;
  const symbols = Object.fromEntries(NAMES.map((name) => [name, found.get(name)!]));
  return { socket: inside, handle, symbols } as Parts;
}

/** The names of the parts of `onread` in `node:net`. */
const NAMES = ['kBuffer', 'kBufferCb', 'kBufferGen'] as const;
