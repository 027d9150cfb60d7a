/**
 * A server with etcd's gRPC interface whose answers a test writes, for what a real etcd does rarely.
 * @module
 */
import grpc from '@grpc/grpc-js';
import { fromJSON } from '@grpc/proto-loader';
import { DESCRIPTOR, type TxnRequest } from '../../src/etcd/descriptor.ts';

type Stream = grpc.ServerDuplexStream<Record<string, unknown>, object>;

/** It is one member that answers each request as an empty cluster would, until a test gives another handler. */
export class FakeEtcd {
  readonly port: number;
  header: { cluster_id: string; revision: string; raft_term: string } = {
    cluster_id: '17293822569102704640',
    revision: '7',
    raft_term: '3',
  };
  /** The watches that are there. */
  readonly watches: Set<Stream> = new Set();
  /** Why a watch is refused; undefined if it is not. */
  refusal: string | undefined;
  refusals = 0;
  /** Whether requests for the progress of a watch are answered. */
  answersProgress = true;
  /** What is answered to renewals, in seconds; undefined: nothing. */
  renewedTtl: string | undefined = '1';
  renewals = 0;
  /** The ids of the leases that were revoked. */
  readonly revoked: string[] = [];
  /** Answers a commit; `key` is the first one that it writes. */
  onTxn: (
    answer: (error: { code: number; details: string } | null, value?: object) => void,
    key: string
  ) => void = (answer) => answer(null, { header: this.header, succeeded: true, responses: [] });
  readonly #server: grpc.Server;

  private constructor(server: grpc.Server, port: number) {
    this.#server = server;
    this.port = port;
  }

  static async start(): Promise<FakeEtcd> {
    const server = new grpc.Server();
    const definitions = fromJSON(DESCRIPTOR as Parameters<typeof fromJSON>[0], {
      keepCase: true,
      longs: String,
      defaults: true,
    });
    const of = (name: string): grpc.ServiceDefinition =>
      definitions[`etcdserverpb.${name}`] as grpc.ServiceDefinition;
    let fake!: FakeEtcd;
    server.addService(of('KV'), {
      Range: (_: unknown, answer: grpc.sendUnaryData<object>) =>
        answer(null, { header: fake.header, kvs: [] }),
      Txn: ({ request }: { request: TxnRequest }, answer: grpc.sendUnaryData<object>) => {
        const [first] = request.success as readonly { request_put?: { key: Buffer } }[];
        fake.onTxn(answer as never, String(first?.request_put?.key ?? ''));
      },
    });
    server.addService(of('Watch'), { Watch: (stream: Stream) => fake.#watch(stream) });
    server.addService(of('Lease'), {
      LeaseGrant: (_: unknown, answer: grpc.sendUnaryData<object>) =>
        // Such an id does not fit a number.
        answer(null, { header: fake.header, ID: '7587888999000111222', TTL: '1' }),
      LeaseRevoke: (call: { request: { ID: string } }, answer: grpc.sendUnaryData<object>) => {
        fake.revoked.push(call.request.ID);
        answer(null, { header: fake.header });
      },
      LeaseKeepAlive: (stream: Stream) =>
        stream.on('data', ({ ID }) => {
          fake.renewals++;
          const { renewedTtl: TTL, header } = fake;
          if (TTL !== undefined) stream.write({ header, ID, TTL });
        }),
    });
    const port = await new Promise<number>((resolve, reject) => {
      server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
        error === null ? resolve(bound) : reject(error)
      );
    });
    fake = new FakeEtcd(server, port);
    return fake;
  }

  /** Sends to all watches. */
  tell(answer: object): void {
    for (const stream of this.watches) stream.write({ header: this.header, ...answer });
  }

  close(): void {
    this.#server.forceShutdown();
  }

  #watch(stream: Stream): void {
    this.watches.add(stream);
    stream.on('close', () => this.watches.delete(stream));
    stream.on('cancelled', () => this.watches.delete(stream));
    stream.on('data', (request: Record<string, unknown>) => {
      const { header, refusal } = this;
      if (request.create_request && refusal !== undefined) {
        this.refusals++;
        stream.write({ header, canceled: true, cancel_reason: refusal });
      } else if (request.create_request) stream.write({ header, created: true });
      else if (this.answersProgress) stream.write({ header: this.header, watch_id: '-1' });
    });
  }
}

/** A key of the prefix `/vp/fake/` as etcd has it. */
export function pair(key: string, value: unknown, revision: number): object {
  return {
    key: Buffer.from(`/vp/fake/${key}`),
    value: Buffer.from(typeof value === 'string' ? value : JSON.stringify(value)),
    mod_revision: String(revision),
  };
}
