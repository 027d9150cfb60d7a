/** Secrets in a store that several machines share. */
import { describe, expect, test } from 'vitest';
import {
  ApiMisuseError,
  ConfigError,
  ConflictError,
  EnvironmentError,
  PassphraseError,
  StoreError,
} from '../../src/errors.ts';
import { type Json, MemoryStore, StoreSecrets } from '../../src/store/index.ts';

const PASSPHRASE = 'correct horse';
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

async function text(secrets: StoreSecrets, name: string): Promise<string | undefined> {
  const found = await secrets.get(name);
  return found && Buffer.from(found).toString();
}

async function twoMachines() {
  const store = new MemoryStore();
  const open = () => StoreSecrets.open(store, { passphrase: PASSPHRASE });
  const here = await open();
  await here.commit({ 'ca.pem': bytes('certificate'), 'ca-key.pem': bytes('the private key') });
  return { store, here, there: await open() };
}

describe('secrets of several machines', () => {
  test('are the same on all, and only encrypted in the store', async () => {
    const { store, there } = await twoMachines();
    expect(await text(there, 'ca-key.pem')).toBe('the private key');
    const entries = await store.list('');
    expect(entries.map(({ key }) => key)).toEqual(['ca/ca-key.pem', 'ca/ca.pem']);
    for (const { value } of entries) {
      const stored = Buffer.from(value as string, 'base64').toString('latin1');
      expect(stored).not.toContain('certificate');
      expect(stored).not.toContain('private');
    }
  });

  test('are changed by one machine at a time, if both have read them', async () => {
    const { here, there } = await twoMachines();
    await Promise.all([here.get('ca.json'), there.get('ca.json')]);
    await here.commit({ 'ca.json': bytes('here'), 'ca-2.pem': bytes('here') });
    const late = there.commit({ 'ca.json': bytes('there'), 'ca-2.pem': bytes('there') });
    await expect(late).rejects.toThrow(ConflictError);
    await expect(late).rejects.toThrow('another machine has changed ca.json, ca-2.pem');
    expect(await text(there, 'ca-2.pem')).toBe('here');
    expect(await text(there, 'ca.json')).toBe('here');
    await there.commit({ 'ca.json': bytes('there') });
    expect(await text(here, 'ca.json')).toBe('there');
  });

  test('tell each other what has changed', async () => {
    const { store, here, there } = await twoMachines();
    const seen: string[][] = [];
    const unwatch = there.watch((names) => seen.push([...names]));
    await here.commit({ 'ca.json': bytes('1'), 'ca.pem': undefined });
    await store.commit([{ key: 'cab', value: 1 }]);
    unwatch();
    await here.commit({ 'ca.json': bytes('2') });
    expect(seen).toEqual([['ca.json', 'ca.pem']]);
  });
});

describe('the passphrase', () => {
  test.each([undefined, ''])('is compulsory, and must not be %j', async (passphrase) => {
    const opened = StoreSecrets.open(new MemoryStore(), { passphrase: passphrase as string });
    await expect(opened).rejects.toThrow(ConfigError);
    await expect(opened).rejects.toMatchObject({ path: 'passphrase' });
  });

  test('must be that of the other machines', async () => {
    const { store } = await twoMachines();
    const opened = StoreSecrets.open(store, { passphrase: 'another one' });
    await expect(opened).rejects.toThrow(PassphraseError);
    await expect(opened).rejects.toThrow('ca/ca-key.pem in the store is encrypted under another');
  });
});

describe('an entry that is not an encrypted secret', () => {
  test('is an error, at the start and later', async () => {
    const { store, there } = await twoMachines();
    const wrong: readonly Json[] = [
      '-----BEGIN PRIVATE KEY-----',
      { key: 'value' },
      null,
      Buffer.from('\0vpsecret\x01').toString('base64'),
    ];
    for (const value of wrong) {
      await store.commit([{ key: 'ca/a.pem', value }]);
      await expect(there.get('a.pem')).rejects.toThrow(EnvironmentError);
      const opened = StoreSecrets.open(store, { passphrase: PASSPHRASE });
      await expect(opened).rejects.toThrow('ca/a.pem in the store is not an encrypted secret');
    }
  });

  test('is an error if it is that of another secret', async () => {
    const { store, there } = await twoMachines();
    const { value } = (await store.get('ca/ca-key.pem'))!;
    await store.commit([{ key: 'ca/ca.pem', value }]);
    await expect(there.get('ca.pem')).rejects.toThrow('is the file of another secret');
  });
});

test('a store that fails changes nothing, and the commit may be repeated', async () => {
  const { store, here } = await twoMachines();
  const commit = store.commit.bind(store);
  store.commit = async () => {
    throw new StoreError('the store is away');
  };
  await expect(here.commit({ 'ca.json': bytes('1') })).rejects.toThrow('the store is away');
  store.commit = commit;
  expect(await here.get('ca.json')).toBeUndefined();
  await here.commit({ 'ca.json': bytes('1') });
  expect(await text(here, 'ca.json')).toBe('1');
});

test('more secrets than the store takes at once are refused', async () => {
  const store = Object.assign(new MemoryStore(), { maxWrites: 1 });
  const here = await StoreSecrets.open(store, { passphrase: PASSPHRASE });
  const both = here.commit({ a: bytes('1'), b: bytes('1') });
  await expect(both).rejects.toThrow(ApiMisuseError);
  expect(await here.get('a')).toBeUndefined();
});
