/**
 * The events of the sockets, with the arguments of their listeners. Those of the server are in `server.ts`.
 * @module
 */
import type { RemoteInfo } from 'node:dgram';
import type { Readable } from 'node:stream';

/** A method like `on`. A listener of one of these events gets its arguments, a listener of another event any. */
export interface AddListener<Events extends Record<keyof Events, unknown[]>, Emitter> {
  <Name extends keyof Events>(event: Name, listener: (...args: Events[Name]) => void): Emitter;
  // biome-ignore lint/suspicious/noExplicitAny: as EventEmitter declares it
  (event: string | symbol, listener: (...args: any[]) => void): Emitter;
}

/** The events of a `PresenceSocket`: those of `net.Socket`. */
export interface PresenceSocketEvents {
  lookup: [
    error: Error | null,
    address: string | undefined,
    family: number | undefined,
    host: string,
  ];
  connectionAttempt: [address: string, port: number, family: number];
  connectionAttemptFailed: [address: string, port: number, family: number, error: Error];
  connectionAttemptTimeout: [address: string, port: number, family: number];
  connect: [];
  ready: [];
  data: [data: Buffer];
  readable: [];
  pause: [];
  resume: [];
  end: [];
  drain: [];
  finish: [];
  pipe: [source: Readable];
  unpipe: [source: Readable];
  timeout: [];
  error: [error: Error];
  close: [hadError: boolean];
}

/** The events of a `PresenceDatagramSocket`: those of `dgram.Socket`. */
export interface PresenceDatagramEvents {
  listening: [];
  connect: [];
  message: [message: Buffer, from: RemoteInfo];
  error: [error: Error];
  close: [];
}
