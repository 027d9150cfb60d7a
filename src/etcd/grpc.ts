/**
 * Loads gRPC, which only this module needs: the packages are optional, and nothing loads them before a store is opened.
 * @module
 */
import { EnvironmentError } from '../errors.ts';
import { DESCRIPTOR } from './descriptor.ts';

export type Grpc = typeof import('@grpc/grpc-js');

/** How a call is written and read, as `@grpc/proto-loader` makes it of the descriptor. */
export interface Codec {
  readonly requestSerialize: (value: object) => Buffer;
  readonly responseDeserialize: (bytes: Buffer) => object;
}

export interface LoadedGrpc {
  readonly grpc: Grpc;
  /** Keyed by the path of the call: `/etcdserverpb.KV/Range`. */
  readonly codecs: ReadonlyMap<string, Codec>;
}

/** @throws {EnvironmentError} if the packages are not installed or do not load. */
export async function loadGrpc(): Promise<LoadedGrpc> {
  try {
    const [grpc, { fromJSON }] = await Promise.all([
      import('@grpc/grpc-js'),
      import('@grpc/proto-loader'),
    ]);
    const codecs = new Map<string, Codec>();
    for (const each of Object.values(
      fromJSON(DESCRIPTOR as Parameters<typeof fromJSON>[0], READING)
    )) {
      // A message has a format, a service has its calls.
      if ('format' in each) continue;
      for (const method of Object.values(each) as unknown as (Codec & { path: string })[]) {
        codecs.set(method.path, method);
      }
    }
    return { grpc, codecs };
  } catch (cause) {
    throw new EnvironmentError(
      `EtcdStore needs the packages @grpc/grpc-js and @grpc/proto-loader, which could not be loaded (npm install @grpc/grpc-js @grpc/proto-loader): ${(cause as Error).message}`,
      { cause }
    );
  }
}

/** The names of the descriptor stay, 64-bit numbers are texts, and what an answer leaves out has its default. */
const READING = { keepCase: true, longs: String, defaults: true, arrays: true };
