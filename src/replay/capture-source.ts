/**
 * Where the bytes of a capture come from. A replay reads them twice.
 * @module
 */
import { type FileHandle, open } from 'node:fs/promises';
import { CaptureError, EnvironmentError } from '../errors.ts';
import { CaptureReader } from './capture-reader.ts';
import type { CapturedPacket } from './captured-packet.ts';

export interface CaptureSource {
  /**
   * Reads the capture from its beginning.
   *
   * @param take takes each packet, which is valid only during the call
   * @returns the format
   * @throws {CaptureError} if it is not a whole capture.
   */
  read(take: (packet: CapturedPacket) => void): Promise<'pcap' | 'pcapng'>;
}

/** A capture in a file. It holds no more of it in memory than 1 MiB and a packet. */
export class CaptureFile implements CaptureSource {
  readonly #path: string;
  /** The size in bytes when it was first read. A capture that grows is read to there. */
  #size: number | undefined;

  constructor(path: string) {
    this.#path = path;
  }

  /** @throws {EnvironmentError} if the file cannot be read. */
  async read(take: (packet: CapturedPacket) => void): Promise<'pcap' | 'pcapng'> {
    const reader = new CaptureReader(take);
    const file = await this.#open();
    try {
      this.#size ??= await this.#sizeOf(file);
      const chunk = new Uint8Array(CHUNK_BYTES);
      for (let at = 0; at < this.#size; ) {
        const want = Math.min(CHUNK_BYTES, this.#size - at);
        const { bytesRead } = await file.read(chunk, 0, want, at);
        if (bytesRead === 0) break;
        reader.push(chunk.subarray(0, bytesRead));
        at += bytesRead;
      }
      reader.end(this.#path);
      return reader.format!;
    } catch (error) {
      if (error instanceof CaptureError || error instanceof EnvironmentError) throw error;
      throw this.#unreadable(error);
    } finally {
      await file.close();
    }
  }

  async #open(): Promise<FileHandle> {
    try {
      return await open(this.#path, 'r');
    } catch (error) {
      throw this.#unreadable(error);
    }
  }

  async #sizeOf(file: FileHandle): Promise<number> {
    const status = await file.stat();
    if (status.isFile()) return status.size;
    throw new EnvironmentError(
      `${this.#path} is not a file: the capture is read twice, so write it to a file first`
    );
  }

  #unreadable(error: unknown): EnvironmentError {
    const { message } = error as Error;
    return new EnvironmentError(`the capture ${this.#path} cannot be read: ${message}`, {
      cause: error,
    });
  }
}

/** A capture in memory. */
export class CaptureBytes implements CaptureSource {
  readonly #bytes: Uint8Array;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
  }

  async read(take: (packet: CapturedPacket) => void): Promise<'pcap' | 'pcapng'> {
    const reader = new CaptureReader(take);
    reader.push(this.#bytes);
    reader.end();
    return reader.format!;
  }
}

const CHUNK_BYTES = 1 << 20;
