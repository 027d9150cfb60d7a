/**
 * pg and ioredis over the sockets of an agent, with PostgreSQL and Redis behind a cloud gateway that needs no root. Then
 * that gateway is killed.
 */
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { Redis } from 'ioredis';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { PresenceSocket } from '../../src/sockets/index.ts';
import { RootlessScene, whatTheSceneMisses, ZONE } from './rootless-scene.ts';
import { PASSWORD, POSTGRES, startPostgres, startRedis } from './rootless-servers.ts';

const skipReason = whatTheSceneMisses({
  [POSTGRES]: 'postgresql',
  'redis-server': 'redis-server',
});
const isSkipped = skipReason !== undefined && process.env.CI === undefined;
const reason = isSkipped ? ` (skipped: ${skipReason})` : '';

const WAIT = { timeout: 60_000 };
const MIB = 1 << 20;

describe.skipIf(isSkipped)(`clients of databases over the sockets of an agent${reason}`, () => {
  let scene: RootlessScene;

  beforeAll(async () => {
    if (skipReason !== undefined) throw new Error(skipReason);
    scene = await RootlessScene.start(['postgres=5432', 'redis=6379'], (it) =>
      Promise.all([startPostgres(it), startRedis(it)])
    );
  });
  afterAll(() => scene?.close());

  /** Connects to PostgreSQL by its name. */
  async function openPostgres(): Promise<pg.Client> {
    const client = new pg.Client({
      host: `postgres.${ZONE}`,
      user: 'tester',
      password: PASSWORD,
      database: 'postgres',
      stream: () => new PresenceSocket(scene.agent.sockets),
    });
    // It is emitted beside the failure of the query.
    client.on('error', () => {});
    onTestFinished(() => client.end());
    await client.connect();
    return client;
  }

  /** Connects to Redis by its name. */
  async function openRedis(): Promise<Redis> {
    const { sockets } = scene.agent;
    class Connector {
      async connect() {
        return sockets.connect(6379, `redis.${ZONE}`);
      }
      check() {
        return true;
      }
      disconnect() {}
    }
    const redis = new Redis({ Connector: Connector as never, password: PASSWORD });
    redis.on('error', () => {});
    onTestFinished(() => redis.disconnect());
    await redis.ping();
    return redis;
  }

  describe('pg', () => {
    test('logs in, inserts 10,000 rows and reads them back', async () => {
      const client = await openPostgres();
      await client.query('CREATE TABLE hosts (id integer PRIMARY KEY, note text NOT NULL)');
      const notes = Array.from({ length: 10_000 }, () => randomBytes(256).toString('hex'));
      const length = notes.length * notes[0]!.length;
      const { rows } = await scene.seeAtTunnel(length, length, async () => {
        await client.query(
          'INSERT INTO hosts SELECT i - 1, note FROM unnest($1::text[]) WITH ORDINALITY AS t(note, i)',
          [notes]
        );
        return client.query<{ note: string }>('SELECT note FROM hosts ORDER BY id');
      });
      expect(rows.map(({ note }) => note)).toEqual(notes);
      // The backend of the cloud gateway has connected, at the address that it gives this client.
      const seen = await client.query("SELECT inet_client_addr() << '127.128.0.0/9' AS is_backend");
      expect(seen.rows).toEqual([{ is_backend: true }]);
    });

    test('goes on after an error, within one connection', async () => {
      const client = await openPostgres();
      await client.query('BEGIN');
      await expect(client.query('SELECT nothing FROM nowhere')).rejects.toMatchObject({
        code: '42P01',
      });
      await client.query('ROLLBACK');
      expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    });

    test('is cancelled from another connection', async () => {
      const client = await openPostgres();
      const other = await openPostgres();
      const { rows } = await client.query('SELECT pg_backend_pid() AS pid');
      const failure = client.query('SELECT pg_sleep(600)').catch((error: unknown) => error);
      const isAsleep = "SELECT wait_event = 'PgSleep' AS it FROM pg_stat_activity WHERE pid = $1";
      await vi.waitFor(async () => {
        const { rows: found } = await other.query(isAsleep, [rows[0].pid]);
        expect(found).toEqual([{ it: true }]);
      }, WAIT);
      await other.query('SELECT pg_cancel_backend($1)', [rows[0].pid]);
      expect(await failure).toMatchObject({ code: '57014' });
      expect((await client.query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
    });
  });

  describe('ioredis', () => {
    test('sends thousands of commands in a pipeline, and moves a big value both ways', async () => {
      const redis = await openRedis();
      const pipeline = redis.pipeline();
      for (let i = 0; i < 10_000; i++) pipeline.incr('count');
      const answers = await pipeline.exec();
      expect(answers?.map(([error, count]) => error ?? count)).toEqual(
        Array.from({ length: 10_000 }, (_, i) => i + 1)
      );
      const value = randomBytes(8 * MIB);
      await scene.seeAtTunnel(value.length, value.length, async () => {
        await redis.set('big', value);
        expect((await redis.getBuffer('big'))?.equals(value)).toBe(true);
      });
    });

    test('gets what others publish', async () => {
      const [subscriber, publisher] = [await openRedis(), await openRedis()];
      const messages = Array.from({ length: 1_000 }, (_, i) => `message ${i}`);
      const got: string[] = [];
      const all = new Promise<void>((resolve) => {
        subscriber.on('message', (_, message) => {
          got.push(message);
          if (got.length === messages.length) resolve();
        });
      });
      await subscriber.subscribe('news');
      for (const message of messages) void publisher.publish('news', message);
      await all;
      expect(got).toEqual(messages);
    });

    test('connects again after the server has ended its connection', async () => {
      const [redis, other] = [await openRedis(), await openRedis()];
      const id = await redis.client('ID');
      const closed = once(redis, 'close');
      expect(await other.client('KILL', 'ID', id)).toBe(1);
      await closed;
      expect(await redis.ping()).toBe('PONG');
      expect(await redis.client('ID')).not.toBe(id);
    });
  });

  test('the cloud gateway is killed: clients learn it by a reset when it is back, and connect again', async () => {
    const client = await openPostgres();
    const redis = await openRedis();
    const errors: NodeJS.ErrnoException[] = [];
    redis.on('error', (error) => errors.push(error));

    await scene.killCloud();
    await vi.waitFor(() => expect(scene.agent.state).toBe('connecting'), WAIT);
    const query = client.query('SELECT 1').catch((error: unknown) => error);
    const ping = redis.ping();
    const waiting = openPostgres();
    await scene.startCloud();

    // Without the reset, the query would fail by the user timeout, after 924 s.
    expect(await query).toMatchObject({ code: 'ECONNRESET', syscall: 'read' });
    // ioredis connects again by itself, and repeats what has no answer.
    expect(await ping).toBe('PONG');
    expect(errors[0]).toMatchObject({ code: 'ECONNRESET', syscall: 'read' });
    expect((await (await waiting).query('SELECT 1 AS one')).rows).toEqual([{ one: 1 }]);
  });
});
