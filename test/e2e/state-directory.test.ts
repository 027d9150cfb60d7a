/**
 * The files of the reference gateways: who can read them, and what a crash or a full disk leaves.
 */
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { afterAll, describe, expect, test, vi } from 'vitest';
import { CloudTrust } from '../../examples/cloud-gateway/trust.ts';
import { StateDirectory } from '../../examples/program/files.ts';
import {
  EnvironmentError,
  encryptPrivateKey,
  generateCa,
  generateGatewayKey,
  MemoryStore,
} from '../../src/index.ts';
import { Workspace } from './gateway-process.ts';

const workspace = new Workspace();
afterAll(() => workspace.remove());

const TRUST_DOMAIN = 'openstack.test';
const CONFIG = { keyType: 'p256', intermediate: false, certificateLifetimeSeconds: 3600 } as const;
const PASSPHRASE = 'correct horse';

const modeOf = (path: string): number => statSync(path).mode & 0o777;

/** A directory whose writes fail on demand. */
class FaultyDirectory extends StateDirectory {
  /** How many writes succeed before the one that fails; none fails if it is undefined. */
  failAfter: number | undefined;
  /** Whether the one that fails has put the file in place all the same, as when only the directory's sync fails. */
  isInPlace = false;

  override write(name: string, text: string): void {
    if (this.failAfter === undefined || this.failAfter-- > 0) {
      super.write(name, text);
      return;
    }
    this.failAfter = undefined;
    if (this.isInPlace) super.write(name, text);
    throw new Error('the disk is full');
  }
}

function openTrust(
  state: StateDirectory,
  passphraseFile?: string,
  intermediate = false
): Promise<CloudTrust> {
  return CloudTrust.open({
    trustDomain: TRUST_DOMAIN,
    config: {
      ...{ ...CONFIG, intermediate },
      ...(passphraseFile === undefined ? {} : { passphraseFile }),
    },
    state,
    store: new MemoryStore(),
    log: () => {},
    onRenewal: () => {},
    onRefusedRenewal: () => {},
  });
}

/** How far the change of CA is after a restart. */
async function afterRestart(path: string): Promise<string> {
  const trust = await openTrust(new StateDirectory(path));
  trust.close();
  return trust.authority.rollover;
}

describe('StateDirectory', () => {
  test.skipIf(process.platform === 'win32')(
    'lets a left-over of an interrupted write neither widen the mode of a secret nor catch it',
    () => {
      const state = new StateDirectory(join(workspace.newDirectory(), 'state'));
      const leftOver = `${state.pathOf('ca-key.pem')}.new`;
      writeFileSync(leftOver, 'of before');
      chmodSync(leftOver, 0o644);
      state.write('ca-key.pem', 'secret');
      expect(modeOf(state.pathOf('ca-key.pem'))).toBe(0o600);

      const elsewhere = join(workspace.newDirectory(), 'elsewhere');
      writeFileSync(elsewhere, 'of another');
      symlinkSync(elsewhere, leftOver);
      state.write('ca-key.pem', 'secret again');
      expect(readFileSync(elsewhere, 'utf8')).toBe('of another');
      expect(readFileSync(state.pathOf('ca-key.pem'), 'utf8')).toBe('secret again');
      expect(readdirSync(state.path)).toEqual(['ca-key.pem']);
    }
  );

  test.skipIf(process.platform === 'win32')(
    'refuses a directory that is there and open to others, and says what to do',
    () => {
      const path = join(workspace.newDirectory(), 'state');
      mkdirSync(path);
      for (const mode of [0o755, 0o750, 0o711, 0o701]) {
        chmodSync(path, mode);
        const octal = `0${mode.toString(8)}`;
        expect(() => new StateDirectory(path)).toThrow(
          `the state directory ${path} is open to others (mode ${octal}): chmod 700 ${path}`
        );
      }
      chmodSync(path, 0o700);
      expect(new StateDirectory(path).path).toBe(path);
    }
  );

  test.skipIf(process.getuid === undefined)(
    'refuses a directory of another user, and says what to do',
    () => {
      const path = join(workspace.newDirectory(), 'state');
      mkdirSync(path, { mode: 0o700 });
      const owner = statSync(path).uid;
      const other = owner + 1;
      const getuid = vi.spyOn(process as Required<typeof process>, 'getuid');
      try {
        getuid.mockReturnValue(other);
        expect(() => new StateDirectory(path)).toThrow(
          new EnvironmentError(
            `the state directory ${path} belongs to user ${owner}, and the gateway runs as user ${other}: run it as user ${owner}, or chown -R ${other} ${path}`
          )
        );
        getuid.mockReturnValue(owner);
        expect(new StateDirectory(path).path).toBe(path);
      } finally {
        getuid.mockRestore();
      }
    }
  );

  test('leaves nothing behind of a write that failed', () => {
    const state = new StateDirectory(join(workspace.newDirectory(), 'state'));
    mkdirSync(state.pathOf('ca-key.pem'));
    expect(() => state.write('ca-key.pem', 'secret')).toThrow('cannot be written');
    expect(readdirSync(state.path)).toEqual(['ca-key.pem']);
  });
});

describe('a change of CA on a disk that is full for a while', () => {
  const steps = ['prepare', 'activate', 'retire'] as const;
  const states = ['none', 'prepared', 'active', 'none'];

  test.each(steps.flatMap((step) => [false, true].map((isInPlace) => [step, isInPlace] as const)))(
    'can repeat "%s" after any write of it has failed, in place or not: %s',
    async (step, isInPlace) => {
      const at = steps.indexOf(step);
      const before = states[at]!;
      const after = states[at + 1]!;
      for (let failAfter = 0; ; failAfter++) {
        const path = join(workspace.newDirectory(), 'state');
        const state = new FaultyDirectory(path);
        const trust = await openTrust(state);
        for (const each of steps.slice(0, at)) await trust[each]();
        const bundle = trust.authority.trustBundlePem;

        state.failAfter = failAfter;
        state.isInPlace = isInPlace;
        const failure = await (async () => trust[step]())().catch((error: Error) => error);
        const hasFailed = failure !== undefined;
        state.failAfter = undefined;
        if (hasFailed) {
          expect(failure.message).toBe('the disk is full');
          expect(trust.authority.rollover).toBe(before);
          expect(trust.authority.trustBundlePem).toBe(bundle);
          expect([before, after]).toContain(await afterRestart(path));
          await trust[step]();
        }
        expect(trust.authority.rollover).toBe(after);
        expect(await afterRestart(path)).toBe(after);
        for (const each of steps.slice(at + 1)) await trust[each]();
        expect(await afterRestart(path)).toBe('none');
        const again = await openTrust(new StateDirectory(path));
        expect(again.authority.spkiHash).toBe(trust.authority.spkiHash);
        expect(again.retired).toHaveLength(1);
        // The key of a CA that signs no more is gone.
        expect(readdirSync(path).filter((name) => name.endsWith('-key.pem'))).toEqual([
          'ca-2-key.pem',
        ]);
        again.close();
        trust.close();
        if (!hasFailed) {
          expect(failAfter).toBeGreaterThan(0);
          return;
        }
      }
    }
  );

  test('writes nothing of a next CA that is unfit', async () => {
    const state = new StateDirectory(join(workspace.newDirectory(), 'state'));
    const trust = await openTrust(state);
    const foreign = generateCa({ trustDomain: 'another.test' });
    await expect((async () => trust.prepare(foreign))()).rejects.toThrow(
      'is for URI:spiffe://another'
    );
    expect(readdirSync(state.path).sort()).toEqual(['ca-key.pem', 'ca.pem']);
    expect(trust.authority.rollover).toBe('none');
    await trust.prepare();
    trust.close();
  });

  test('keeps the key of the root before the CA that the root has signed', async () => {
    const state = new FaultyDirectory(join(workspace.newDirectory(), 'state'));
    for (let failAfter = 0; failAfter < 3; failAfter++) {
      state.failAfter = failAfter;
      const opening = openTrust(state, undefined, true);
      await expect(opening).rejects.toThrow('the disk is full');
      if (state.has('ca.pem')) expect(state.has('root-key.pem')).toBe(true);
    }
  });
});

describe('keys at rest', () => {
  test('are encrypted anew when they were stretched less than now, once, and never left in the clear', async () => {
    const home = workspace.newDirectory();
    const passphraseFile = join(home, 'passphrase');
    writeFileSync(passphraseFile, `${PASSPHRASE}\n`);
    const state = new StateDirectory(join(home, 'state'));
    const first = await openTrust(state, undefined, true);
    await first.prepare();
    first.close();
    const keys = ['ca-key.pem', 'ca-2-key.pem', 'root-key.pem'];
    for (const name of keys) expect(state.read(name)).toMatch(/^-----BEGIN PRIVATE KEY/);

    // A passphrase is given from now on.
    const second = await openTrust(state, passphraseFile);
    second.close();
    const kept = keys.map((name) => state.read(name));
    for (const text of kept) expect(text).toMatch(/^-----BEGIN ENCRYPTED PRIVATE KEY/);
    expect(second.authority.spkiHash).toBe(first.authority.spkiHash);
    expect(second.authority.rollover).toBe('prepared');

    const third = await openTrust(state, passphraseFile);
    third.close();
    expect(keys.map((name) => state.read(name))).toEqual(kept);

    for (const passphrase of ['', '\n']) {
      writeFileSync(passphraseFile, passphrase);
      await expect(openTrust(state, passphraseFile)).rejects.toThrow('the passphrase file');
    }
    writeFileSync(passphraseFile, 'wrong');
    await expect(openTrust(state, passphraseFile)).rejects.toThrow(/the CA certificates in .*key/);
    rmSync(passphraseFile);
  });

  test('of a root CA under another passphrase are named', async () => {
    const home = workspace.newDirectory();
    const passphraseFile = join(home, 'passphrase');
    writeFileSync(passphraseFile, PASSPHRASE);
    const state = new StateDirectory(join(home, 'state'));
    (await openTrust(state, passphraseFile, true)).close();
    const foreign = await encryptPrivateKey(generateGatewayKey().privateKeyPem, 'another');
    state.write('root-key.pem', foreign);
    await expect(openTrust(state, passphraseFile)).rejects.toThrow(
      `${state.pathOf('root-key.pem')}: `
    );
    // Nothing here needs it.
    state.remove('root-key.pem');
    (await openTrust(state, passphraseFile)).close();
  });

  test.each([undefined, PASSPHRASE])(
    'of a retired CA are removed at the next start, if a crash has kept them (passphrase: %s)',
    async (passphrase) => {
      const home = workspace.newDirectory();
      const passphraseFile = passphrase === undefined ? undefined : join(home, 'passphrase');
      if (passphraseFile !== undefined) writeFileSync(passphraseFile, PASSPHRASE);
      const state = new StateDirectory(join(home, 'state'));
      const trust = await openTrust(state, passphraseFile);
      const key = state.read('ca-key.pem');
      await trust.prepare();
      trust.activate();
      trust.retire();
      trust.close();
      state.write('ca-key.pem', key);

      const again = await openTrust(state, passphraseFile);
      again.close();
      expect(readdirSync(state.path).sort()).toEqual([
        'ca-2-key.pem',
        'ca-2.pem',
        'ca.json',
        'ca.pem',
      ]);
      expect(again.retired).toHaveLength(1);
    }
  );
});
