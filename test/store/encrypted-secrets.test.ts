/** Secrets with a passphrase: the content of the files, which files become encrypted, and what is refused. */
import { createDecipheriv, scryptSync } from 'node:crypto';
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { ApiMisuseError, EnvironmentError, PassphraseError } from '../../src/errors.ts';
import { AuthorityKeeper } from '../../src/gateway/index.ts';
import { FileSecrets, FileStore } from '../../src/store/index.ts';
import { failureOf } from '../../src/tunnel/index.ts';

const home = mkdtempSync(join(tmpdir(), 'encrypted-secrets-'));
let directories = 0;
const newDirectory = (): string => {
  const path = join(home, String(directories++));
  mkdirSync(path, { mode: 0o700 });
  return path;
};
afterAll(() => rmSync(home, { recursive: true }));

const PASSPHRASE = 'correct horse';
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);
const open = (path: string, passphrase: string | undefined = PASSPHRASE): Promise<FileSecrets> =>
  FileSecrets.open(path, { passphrase });
const textOf = async (secrets: FileSecrets, name: string): Promise<string> =>
  Buffer.from((await secrets.get(name))!).toString();
/** Returns the files of a directory, each as a text with one character per byte. */
const filesOf = (path: string): Record<string, string> =>
  Object.fromEntries(
    readdirSync(path).map((name) => [name, readFileSync(join(path, name), 'latin1')])
  );

describe('FileSecrets with a passphrase', () => {
  test('writes files that can be decrypted with the passphrase and the documented format alone', async () => {
    const secrets = await open(newDirectory());
    await secrets.commit({ 'key.pem': bytes('secret 1'), token: bytes('') });
    for (const [name, expected] of [
      ['key.pem', 'secret 1'],
      ['token', ''],
    ] as const) {
      const file = readFileSync(secrets.locate(name));
      expect(file.subarray(0, 10).toString('latin1')).toBe('\0vpsecret\u0001');
      const derived = scryptSync(PASSPHRASE, file.subarray(10, 26), 48, {
        N: 32_768,
        r: 8,
        p: 3,
        maxmem: 1 << 26,
      });
      expect(file.subarray(26, 42)).toEqual(derived.subarray(32));
      const decipher = createDecipheriv(
        'aes-256-gcm',
        derived.subarray(0, 32),
        file.subarray(42, 54)
      );
      decipher.setAAD(Buffer.concat([file.subarray(0, 42), Buffer.from(name)]));
      decipher.setAuthTag(file.subarray(-16));
      const plain = decipher.update(file.subarray(54, -16), undefined, 'utf8');
      expect(plain + decipher.final('utf8')).toBe(expected);
      if (process.platform !== 'win32') {
        expect(statSync(secrets.locate(name)).mode & 0o777).toBe(0o600);
      }
    }
  });

  test('keeps the names, uses one salt, and writes the same secret differently each time', async () => {
    const secrets = await open(newDirectory());
    await secrets.commit({ 'a.pem': bytes('same'), 'b.pem': bytes('same') });
    const again = await open(secrets.path);
    await again.commit({ c: bytes('same') });
    const files = filesOf(secrets.path);
    expect(Object.keys(files).sort()).toEqual(['a.pem', 'b.pem', 'c']);
    expect(new Set(Object.values(files).map((file) => file.slice(0, 42))).size).toBe(1);
    expect(new Set(Object.values(files).map((file) => file.slice(42))).size).toBe(3);
    for (const name of Object.keys(files)) expect(await textOf(again, name)).toBe('same');
  });

  test('decrypts a file from a copy elsewhere, without any other file', async () => {
    const secrets = await open(newDirectory());
    await secrets.commit({ 'a.pem': bytes('1'), 'b.pem': bytes('2') });
    const other = await open(newDirectory());
    await other.commit({ 'b.pem': bytes('3') });
    copyFileSync(secrets.locate('a.pem'), other.locate('a.pem'));
    const again = await open(other.path);
    expect([await textOf(again, 'a.pem'), await textOf(again, 'b.pem')]).toEqual(['1', '3']);
  });

  test('encrypts present files in the clear in one commit, and does not change files of others', async () => {
    const path = newDirectory();
    const clear = await FileSecrets.open(path);
    await clear.commit({
      'key.pem': bytes('PLAIN 1'),
      'ca-2-key.pem': bytes('PLAIN 2'),
      'ca.json': bytes('PLAIN 3'),
      token: bytes('PLAIN 4'),
    });
    const others = { 'store.journal': 'of the store', 'my own.pem': 'of another', 'x.txt': '' };
    for (const [name, text] of Object.entries(others)) writeFileSync(join(path, name), text);
    mkdirSync(join(path, 'directory.pem'));
    const before = readFileSync(join(path, 'key.pem'), 'utf8');
    const secrets = await open(path);
    // Nothing has changed yet, so a second process that is started by mistake does no harm.
    expect(readFileSync(join(path, 'key.pem'), 'utf8')).toBe(before);
    expect(await secrets.get('absent')).toBeUndefined();
    rmSync(join(path, 'directory.pem'), { recursive: true });
    const taken = filesOf(path);
    for (const name of ['key.pem', 'ca-2-key.pem', 'ca.json']) {
      expect(taken[name]).toMatch(/^\0vpsecret/);
    }
    expect(taken).toMatchObject({ ...others, token: 'PLAIN 4' });
    expect(await textOf(secrets, 'token')).toBe('PLAIN 4');
    expect(filesOf(path).token).toMatch(/^\0vpsecret/);
    expect(Object.values(filesOf(path)).join()).not.toContain('PLAIN');
    const again = await open(path);
    expect(await textOf(again, 'key.pem')).toBe('PLAIN 1');
    expect(await textOf(again, 'ca-2-key.pem')).toBe('PLAIN 2');
    expect(await textOf(again, 'ca.json')).toBe('PLAIN 3');
  });

  test('encrypts files that an operator adds while it runs, and replaces a link by a file', async () => {
    const secrets = await open(newDirectory());
    await secrets.commit({ 'a.pem': bytes('1') });
    const elsewhere = join(newDirectory(), 'b.pem');
    writeFileSync(elsewhere, 'PLAIN');
    symlinkSync(elsewhere, secrets.locate('b.pem'));
    expect(await textOf(secrets, 'b.pem')).toBe('PLAIN');
    expect(readFileSync(secrets.locate('b.pem'), 'latin1')).toMatch(/^\0vpsecret/);
    expect(readFileSync(elsewhere, 'utf8')).toBe('PLAIN');
  });

  test('refuses a wrong or missing passphrase, and changes nothing', async () => {
    const path = newDirectory();
    await (await open(path)).commit({ 'key.pem': bytes('1') });
    writeFileSync(join(path, 'new.pem'), 'in the clear');
    writeFileSync(join(path, 'key.pem.uncommitted'), 'of a crash');
    const before = filesOf(path);
    const file = join(path, 'key.pem');
    const wrong = await open(path, 'wrong horse').catch((it) => it);
    expect(wrong).toBeInstanceOf(PassphraseError);
    expect(wrong).toMatchObject({
      code: 'ERR_PRESENCE_PASSPHRASE_WRONG',
      fault: 'wrong',
      message: `the passphrase is wrong: ${file} is encrypted under another one`,
    });
    const missing = await FileSecrets.open(path).catch((it) => it);
    expect(missing).toBeInstanceOf(PassphraseError);
    expect(missing).toMatchObject({
      code: 'ERR_PRESENCE_PASSPHRASE_MISSING',
      fault: 'missing',
      message: `${file} is encrypted, and no passphrase was given`,
    });
    for (const error of [wrong, missing]) {
      expect(failureOf(error)).toMatchObject({ kind: 'local', party: 'local' });
    }
    expect(filesOf(path)).toEqual(before);
  });

  test('refuses in the same way when an encrypted file is added later', async () => {
    const encrypted = await open(newDirectory());
    await encrypted.commit({ 'key.pem': bytes('1') });
    const clear = await FileSecrets.open(newDirectory());
    const other = await open(newDirectory(), 'other horse');
    for (const [secrets, fault] of [
      [clear, 'missing'],
      [other, 'wrong'],
    ] as const) {
      copyFileSync(encrypted.locate('key.pem'), secrets.locate('key.pem'));
      await expect(secrets.get('key.pem')).rejects.toThrow(expect.objectContaining({ fault }));
    }
  });

  test('refuses a file that was changed, truncated, or put in the place of another', async () => {
    const secrets = await open(newDirectory());
    await secrets.commit({ 'a.pem': bytes('secret'), 'b.pem': bytes('other') });
    const whole = readFileSync(secrets.locate('a.pem'));
    const refusals = (file: Uint8Array): Promise<unknown> => {
      writeFileSync(secrets.locate('a.pem'), file);
      return secrets.get('a.pem').then(
        () => 'accepted',
        (error) => error
      );
    };
    const fault = new EnvironmentError(
      `${secrets.locate('a.pem')} is damaged, or is the file of another secret: restore it from a copy`
    );
    expect(await refusals(readFileSync(secrets.locate('b.pem')))).toEqual(fault);
    for (let length = 10; length < whole.length; length++) {
      expect(await refusals(whole.subarray(0, length)), `${length} bytes`).toEqual(fault);
    }
    for (let at = 42; at < whole.length; at++) {
      const changed = Uint8Array.from(whole);
      changed[at]! ^= 1;
      expect(await refusals(changed), `byte ${at}`).toEqual(fault);
    }
    const newer = Uint8Array.from(whole);
    newer[9] = 2;
    expect(await refusals(newer)).toMatchObject({ code: 'ERR_PRESENCE_ENVIRONMENT' });
    const check = Uint8Array.from(whole);
    check[26]! ^= 1;
    expect(await refusals(check)).toBeInstanceOf(PassphraseError);
    expect(await refusals(whole)).toBe('accepted');
  });

  test.each([[''], ['x'.repeat(1024)], ['ä'.repeat(512)], [null], [7], [Buffer.from('x')]])(
    'refuses the passphrase %j, and makes no directory',
    async (passphrase) => {
      const path = join(home, 'never');
      await expect(FileSecrets.open(path, { passphrase: passphrase as never })).rejects.toThrow(
        ApiMisuseError
      );
      expect(readdirSync(home)).not.toContain('never');
    }
  );

  test.each([[null], ['passphrase'], [[]]])('refuses the options %j', async (options) => {
    await expect(FileSecrets.open(newDirectory(), options as never)).rejects.toThrow(
      ApiMisuseError
    );
  });

  test('accepts a passphrase of 1,023 bytes', async () => {
    const path = newDirectory();
    const passphrase = 'x'.repeat(1023);
    await (await open(path, passphrase)).commit({ a: bytes('1') });
    expect(await textOf(await open(path, passphrase), 'a')).toBe('1');
  });

  test('refuses to store a secret in the clear that looks encrypted', async () => {
    const secrets = await FileSecrets.open(newDirectory());
    await expect(secrets.commit({ a: bytes('\0vpsecret') })).rejects.toThrow(ApiMisuseError);
    expect(readdirSync(secrets.path)).toEqual([]);
    const encrypted = await open(newDirectory());
    await encrypted.commit({ a: bytes('\0vpsecret') });
    expect(await textOf(encrypted, 'a')).toBe('\0vpsecret');
  });
});

test('encrypts the CA of a gateway, whose key has its own passphrase, and the gateway continues', async () => {
  const path = newDirectory();
  const store = await FileStore.open({ path: join(newDirectory(), 'store') });
  const options = { trustDomain: 'example.org', store, passphrase: 'of the CA' };
  const before = await AuthorityKeeper.open({ ...options, secrets: await FileSecrets.open(path) });
  const { spkiHash } = before.authority;
  await before.close();
  expect(filesOf(path)['ca-key.pem']).toContain('ENCRYPTED PRIVATE KEY');
  for (const _start of [1, 2]) {
    const keeper = await AuthorityKeeper.open({ ...options, secrets: await open(path) });
    expect(keeper.authority.spkiHash).toBe(spkiHash);
    await keeper.close();
    for (const file of Object.values(filesOf(path))) expect(file).toMatch(/^\0vpsecret/);
  }
  await store.close();
});
