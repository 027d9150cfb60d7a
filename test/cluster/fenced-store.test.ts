import { describe, expect, test } from 'vitest';
import { Cloud } from './cloud.ts';

const write = { key: 'desired/site-a', value: { pool: '100.64.0.0/24' } };

describe('a commit without an answer', () => {
  test('that was applied resolves', async () => {
    const cloud = new Cloud();
    const { member, store } = await cloud.start('m1');
    store.fail('desired/', 'applied');
    await member.store.commit([{ ...write, expect: 0 }]);
    expect(await store.get(write.key)).toMatchObject({ value: write.value });
  });

  test('that was not applied fails, and is not applied later', async () => {
    const cloud = new Cloud();
    const { member, store } = await cloud.start('m1');
    store.fail('desired/', 'late');
    await expect(member.store.commit([write])).rejects.toMatchObject({
      code: 'ERR_PRESENCE_STORE_UNAVAILABLE',
      message: 'the commit got no answer, and was not applied',
    });
    await store.deliver();
    expect(await store.get(write.key)).toBeUndefined();
  });

  test('is looked up also if the answer to the look-up is lost', async () => {
    const cloud = new Cloud();
    const { member, store } = await cloud.start('m1');
    store.fail('desired/', 'late');
    store.fail('fence/', 'late');
    store.fail('fence/', 'applied');
    const commit = expect(member.store.commit([write])).rejects.toMatchObject({
      code: 'ERR_PRESENCE_STORE_UNAVAILABLE',
    });
    await cloud.pass(1000);
    await commit;
    await store.deliver();
    expect(await store.get(write.key)).toBeUndefined();
    await member.store.commit([write]);
    expect(await store.get(write.key)).toBeDefined();
  });

  test('is reported as in doubt if the lease ends before it is looked up', async () => {
    const cloud = new Cloud();
    const { member, store } = await cloud.start('m1');
    store.fail('desired/', 'applied');
    store.inner.watch('desired/', () => store.inner.disconnect());
    const commit = expect(member.store.commit([write])).rejects.toMatchObject({
      code: 'ERR_PRESENCE_STORE_DOUBT',
    });
    await cloud.pass(4000);
    await commit;
  });

  test('of deletions alone is found applied if the entries are not there', async () => {
    const cloud = new Cloud();
    const { member, store } = await cloud.start('m1');
    const deletion = { key: write.key, value: undefined };
    store.fail('desired/', 'never');
    await member.store.commit([deletion]);
    await member.store.commit([write]);
    store.fail('desired/', 'late');
    await expect(member.store.commit([deletion])).rejects.toThrow('was not applied');
    expect(await store.get(write.key)).toBeDefined();
  });
});

test('a commit beside one that is looked up does not fail by the new fence', async () => {
  const cloud = new Cloud();
  const { member, store } = await cloud.start('m1');
  store.fail('desired/slow', 'slow');
  const slow = member.store.commit([{ key: 'desired/slow', value: 1, expect: 0 }]);
  store.fail('desired/site-a', 'applied');
  await member.store.commit([write]);
  await store.deliver();
  await slow;
  expect(await store.list('desired/')).toHaveLength(2);
});

test('commits in doubt share a look-up', async () => {
  const cloud = new Cloud();
  const { member, store } = await cloud.start('m1');
  let looks = 0;
  store.watch('fence/', () => looks++);
  const commits = Array.from({ length: 20 }, (_, n) => {
    store.fail('desired/', 'applied');
    return member.store.commit([{ key: `desired/site-${n}`, value: n }]);
  });
  await Promise.all(commits);
  expect(looks).toBeLessThanOrEqual(2);
});

test('a conflict stays a conflict', async () => {
  const cloud = new Cloud();
  const { member } = await cloud.start('m1');
  await expect(member.store.commit([{ ...write, expect: 7 }])).rejects.toMatchObject({
    code: 'ERR_PRESENCE_STORE_CONFLICT',
  });
});

test('a detached machine writes nothing, and what it has sent before is not applied', async () => {
  const cloud = new Cloud();
  const { member, store } = await cloud.start('m1');
  store.fail('desired/', 'late');
  const commit = member.store.commit([write]).catch((error: Error) => error.message);
  store.inner.disconnect();
  await cloud.pass(4000);
  await commit;
  expect(member.state).toBe('detached');
  await expect(member.store.commit([write])).rejects.toThrow('is detached');
  store.inner.reconnect();
  await store.deliver();
  expect(await store.get(write.key)).toBeUndefined();
});
