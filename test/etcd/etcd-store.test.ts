/** What every store must do, on a real etcd; and other clouds, garbage, TLS and users. */
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { StoreError, StoreUnavailableError } from '../../src/errors.ts';
import { EtcdStore, type EtcdStoreOptions } from '../../src/etcd/index.ts';
import type { Change } from '../../src/store/index.ts';
import { describeStore } from '../store/conformance.ts';
import { describeLeasingStore } from '../store/leasing-conformance.ts';
import { EtcdServer, whyNoEtcd } from '../support/etcd.ts';
import { Forge, hasOpenssl, subjectAltName, USES_OF_SITE } from '../support/openssl.ts';
import { Relay } from '../support/relay.ts';

const reason = whyNoEtcd();
const isSkipped = reason !== undefined && process.env.CI === undefined;

let etcd: EtcdServer;
let clouds = 0;
const newPrefix = (): string => `/vp/cloud-${clouds++}/`;
const open = (options: Partial<EtcdStoreOptions> = {}): Promise<EtcdStore> =>
  EtcdStore.open({ endpoints: [`127.0.0.1:${etcd.port}`], prefix: newPrefix(), ...options });

describe.skipIf(isSkipped)(`EtcdStore${isSkipped ? ` (skipped: ${reason})` : ''}`, () => {
  beforeAll(async () => {
    etcd = await EtcdServer.start();
  });
  afterAll(() => etcd.close());

  describeStore('EtcdStore', () => open(), 120);
  describeLeasingStore(
    'EtcdStore',
    async () => {
      const prefix = newPrefix();
      const relay = await Relay.open(etcd.port);
      const endpoints = [`127.0.0.1:${relay.port}`];
      const first = await open({ prefix, endpoints, requestTimeoutMs: 2000 });
      const second = await open({ prefix });
      return {
        first,
        second,
        async cutOff() {
          const { ended } = await first.grant(1000);
          relay.cut();
          if (!ended.aborted) await once(ended, 'abort');
        },
        async connect() {
          relay.target = etcd.port;
        },
        async close() {
          relay.close();
          await Promise.all([first.close(), second.close()]);
        },
      };
    },
    1000
  );

  describe('beside others', () => {
    test('sees nothing of another cloud, whose name begins with the same letters', async () => {
      const [one, two] = await Promise.all(['/vp/a/', '/vp/ab/'].map((prefix) => open({ prefix })));
      const seen: string[] = [];
      one!.watch('', (changes) => seen.push(...changes.map(({ key }) => key)));
      await two!.commit([{ key: 'x', value: 2 }]);
      await one!.commit([{ key: 'y', value: 1 }]);
      expect(seen).toEqual(['y']);
      expect((await two!.list('')).map(({ key }) => key)).toEqual(['x']);
      await etcd.ctl('put', '/vp/b', '1');
      expect((await one!.list('')).map(({ key }) => key)).toEqual(['y']);
      await Promise.all([one!.close(), two!.close()]);
    });

    test('keeps its entries and versions when it is opened again, in pages', async () => {
      const prefix = newPrefix();
      const store = await open({ prefix });
      const keys = Array.from({ length: 1100 }, (_, i) => `k/${i}`);
      for (let first = 0; first < keys.length; first += 100) {
        await store.commit(keys.slice(first, first + 100).map((key) => ({ key, value: { key } })));
      }
      const entries = await store.list('');
      expect(entries).toHaveLength(1100);
      await store.close();
      const again = await open({ prefix });
      expect(await again.list('')).toEqual(entries);
      expect(again.version).toBeGreaterThanOrEqual(store.version);
      await again.close();
    });

    test('reports a value that is not JSON and ignores it, and is not opened with it', async () => {
      const prefix = newPrefix();
      const store = await open({ prefix });
      const problems: Error[] = [];
      store.on('problem', ({ error }) => problems.push(error));
      await store.commit([{ key: 'a', value: 1 }]);
      await etcd.ctl('put', `${prefix}a`, '{');
      await vi.waitFor(() => expect(problems).toHaveLength(1));
      expect(await store.get('a')).toBeUndefined();
      await expect(open({ prefix })).rejects.toThrow(`a value at ${prefix}a that is not JSON`);
      await store.commit([{ key: 'a', value: 2 }]);
      expect((await store.get('a'))?.value).toBe(2);
      await (await open({ prefix })).close();
      await store.close();
    });

    test('tells the entries of a lease with many entries in one change', async () => {
      const prefix = newPrefix();
      const [one, two] = await Promise.all([open({ prefix }), open({ prefix })]);
      const lease = await one!.grant(60_000);
      const holders = (first: number) =>
        Array.from({ length: 120 }, (_, i) => ({ key: `holder/${first + i}`, value: 1, lease }));
      for (let first = 0; first < 1200; first += 120) await one!.commit(holders(first));
      await vi.waitFor(async () => expect(await two!.list('')).toHaveLength(1200));
      const calls: (readonly Change[])[] = [];
      two!.watch('', (changes) => calls.push(changes));
      await lease.revoke();
      await vi.waitFor(async () => expect(await two!.list('')).toEqual([]));
      expect(calls.map(({ length }) => length)).toEqual([1200]);
      await Promise.all([one!.close(), two!.close()]);
    });
  });

  const noTls = hasOpenssl ? '' : ' (skipped: openssl is not installed)';
  test.skipIf(!hasOpenssl)(`uses mutual TLS, and refuses another server${noTls}`, async () => {
    const forge = new Forge();
    const ca = forge.root('/CN=etcd', 'basicConstraints=critical,CA:TRUE');
    const otherCa = forge.root('/CN=other', 'basicConstraints=critical,CA:TRUE');
    const uses = [...USES_OF_SITE, 'extendedKeyUsage = clientAuth, serverAuth'];
    const server = forge.leaf(ca, { extensions: [...uses, subjectAltName('IP:127.0.0.1')] });
    const client = forge.leaf(ca, { extensions: uses, subject: '/CN=gateway' });
    const stranger = forge.leaf(otherCa, { extensions: uses, subject: '/CN=gateway' });
    const directory = etcd.directory;
    const files = Object.entries({ cert: server.cert, key: server.key, ca: ca.cert }).map(
      ([name, text]): [string, string] => {
        const path = join(directory, `${name}.pem`);
        writeFileSync(path, text);
        return [name, path];
      }
    );
    const tls = Object.fromEntries(files) as { cert: string; key: string; ca: string };
    const secure = await EtcdServer.start({ tls });
    const endpoints = [`127.0.0.1:${secure.port}`];
    const { key, cert } = client;
    const store = await open({ endpoints, credentials: { ca: ca.cert, key, cert } });
    await store.commit([{ key: 'a', value: 1 }]);
    expect((await store.get('a'))?.value).toBe(1);
    await store.close();
    for (const credentials of [
      { ca: otherCa.cert, key, cert },
      { ca: ca.cert, key: stranger.key, cert: stranger.cert },
      { ca: ca.cert },
    ]) {
      const refused = open({ endpoints, credentials, requestTimeoutMs: 300 });
      await expect(refused).rejects.toThrow(StoreUnavailableError);
    }
    await expect(open({ endpoints, requestTimeoutMs: 300 })).rejects.toThrow(StoreUnavailableError);
    await secure.close();
    forge.close();
  });

  test.skipIf(!hasOpenssl)(
    `takes a renewed certificate for each new connection${noTls}`,
    async () => {
      const forge = new Forge();
      const ca = forge.root('/CN=etcd', 'basicConstraints=critical,CA:TRUE');
      const uses = [...USES_OF_SITE, 'extendedKeyUsage = clientAuth, serverAuth'];
      const server = forge.leaf(ca, { extensions: [...uses, subjectAltName('IP:127.0.0.1')] });
      const hourAgo = (hours: number): Date => new Date(Date.now() - hours * 3_600_000);
      const expired = forge.leaf(ca, { extensions: uses, from: hourAgo(2), to: hourAgo(1) });
      const renewed = forge.leaf(ca, { extensions: uses });
      const pathOf = (name: string): string => join(etcd.directory, `renewed-${name}.pem`);
      const tls = { cert: pathOf('cert'), key: pathOf('key'), ca: pathOf('ca') };
      writeFileSync(tls.cert, server.cert);
      writeFileSync(tls.key, server.key);
      writeFileSync(tls.ca, ca.cert);
      const secure = await EtcdServer.start({ tls });
      const relay = await Relay.open(secure.port);
      let client: { readonly key: string; readonly cert: string } | undefined = expired;
      let reads = 0;
      const opening = open({
        endpoints: [`127.0.0.1:${relay.port}`],
        requestTimeoutMs: 30_000,
        credentials: () => {
          reads++;
          if (client === undefined) throw new Error('the file is being replaced');
          return { ca: ca.cert, key: client.key, cert: client.cert };
        },
      });
      // etcd has refused the certificate, so that there is no connection.
      await vi.waitFor(() => expect(reads).toBeGreaterThan(2), 20_000);
      client = renewed;
      const store = await opening;
      await store.commit([{ key: 'a', value: 1 }]);

      // Files that cannot be used change nothing.
      client = undefined;
      const before = reads;
      relay.cut();
      relay.target = secure.port;
      // A commit that was on its way is in doubt.
      await vi.waitFor(() => store.commit([{ key: 'a', value: 2 }]), 20_000);
      expect(reads).toBeGreaterThan(before);
      await store.close();
      relay.close();
      await secure.close();
      forge.close();
    }
  );

  test('authenticates as a user with a role for the prefix, again when its token is void', async () => {
    const secured = await EtcdServer.start();
    await secured.ctl('user', 'add', 'root:secret');
    await secured.ctl('user', 'add', 'gateway:word');
    await secured.ctl('role', 'add', 'presence');
    await secured.ctl(
      'role',
      'grant-permission',
      'presence',
      '--prefix=true',
      'readwrite',
      '/vp/a/'
    );
    await secured.ctl('user', 'grant-role', 'gateway', 'presence');
    await secured.ctl('user', 'grant-role', 'root', 'root');
    await secured.ctl('auth', 'enable');
    const endpoints = [`127.0.0.1:${secured.port}`];
    const user = { name: 'gateway', password: 'word' };
    const store = await open({ endpoints, prefix: '/vp/a/', user });
    const lease = await store.grant(60_000);
    await store.commit([{ key: 'a', value: 1, lease }]);
    // The tokens of a user that is deleted are void.
    await secured.ctl('--user=root:secret', 'user', 'delete', 'gateway');
    await secured.ctl('--user=root:secret', 'user', 'add', 'gateway:word');
    await secured.ctl('--user=root:secret', 'user', 'grant-role', 'gateway', 'presence');
    await store.commit([{ key: 'a', value: 2, lease }]);
    expect(lease.ended.aborted).toBe(false);
    await store.close();
    for (const [prefix, each] of [
      ['/vp/a/', { name: 'gateway', password: 'wrong' }],
      ['/vp/b/', user],
      ['/vp/a/', undefined],
    ] as const) {
      const options = { endpoints, prefix };
      const refused = open(each === undefined ? options : { ...options, user: each });
      const error = await refused.catch((reason: Error) => reason);
      expect(error).toBeInstanceOf(StoreError);
      expect((error as Error).message).toMatch(/password|permission denied|user name is empty/);
    }
    await secured.close();
  });
});
