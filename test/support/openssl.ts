/**
 * The openssl program: what it says, and certificates that no authority of ours would issue, made with the key of a CA
 * or without it.
 * @module
 */
import { execFileSync, spawnSync } from 'node:child_process';
import { createPrivateKey, generateKeyPairSync } from 'node:crypto';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Credentials } from '../../src/tunnel/index.ts';

export const hasOpenssl: boolean = spawnSync('openssl', ['version']).status === 0;

/** Runs openssl with `@name` and `file:@name` arguments replaced by files of that content; returns its output. */
export function openssl(args: readonly string[], files: Record<string, string> = {}): string {
  const folder = mkdtempSync(join(tmpdir(), 'pki-'));
  try {
    for (const [name, content] of Object.entries(files)) writeFileSync(join(folder, name), content);
    const paths = args.map((arg) => arg.replace(/^(|file:)@/, `$1${folder}/`));
    return execFileSync('openssl', paths, { encoding: 'utf8', stdio: 'pipe' });
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export interface Signer {
  readonly cert: string;
  readonly key: string;
}

export interface Leaf {
  /** Lines of an extension section. */
  readonly extensions?: readonly string[];
  readonly subject?: string;
  /** A time as openssl writes it, `20260131120000Z`; by default from now, for a day. */
  readonly from?: Date;
  readonly to?: Date;
  /** The key of the holder; a new one by default. */
  readonly key?: string;
}

/** The extensions of a valid leaf certificate, to be varied. */
export const USES_OF_SITE: readonly string[] = [
  'basicConstraints = critical, CA:FALSE',
  'keyUsage = critical, digitalSignature',
];
export const CLIENT_AUTH = 'extendedKeyUsage = clientAuth, serverAuth';
export const nameOf = (site: string, domain = 'openstack.test'): string =>
  `URI:spiffe://${domain}/site/${site}`;
export const subjectAltName = (...names: string[]): string =>
  `subjectAltName = ${names.join(', ')}`;

/** Makes certificates in a directory of its own; `close` removes it. */
export class Forge {
  readonly #directory: string = mkdtempSync(join(tmpdir(), 'vp-forge-'));
  #count = 0;

  newKey(): string {
    const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
    return privateKey.export({ type: 'pkcs8', format: 'pem' }).toString();
  }

  /** Returns a certificate that is signed with its own key, with any name. */
  root(subject: string, ...extensions: string[]): Signer {
    const key = this.newKey();
    const keyFile = this.#write('root.key', key);
    const file = this.#path('root.pem');
    this.#openssl(
      ...['req', '-x509', '-new', '-key', keyFile, '-subj', subject, '-days', '2', '-out', file],
      ...['keyUsage=critical,digitalSignature,keyCertSign', ...extensions].flatMap((extension) => [
        '-addext',
        extension,
      ])
    );
    return { key, cert: readFileSync(file, 'utf8') };
  }

  leaf(signer: Signer, leaf: Leaf): Signer {
    const key = leaf.key ?? this.newKey();
    const csr = this.#path('leaf.csr');
    this.#openssl(
      ...['req', '-new', '-key', this.#write('leaf.key', key), '-out', csr],
      ...['-subj', leaf.subject ?? '/CN=forged']
    );
    const out = this.#path('leaf.pem');
    const { from = new Date(Date.now() - HOUR_MS), to = new Date(Date.now() + DAY_MS) } = leaf;
    this.#openssl(
      ...['ca', '-batch', '-notext', '-preserveDN', '-config', this.#config()],
      ...[
        '-cert',
        this.#write('ca.pem', signer.cert),
        '-keyfile',
        this.#write('ca.key', signer.key),
      ],
      ...['-in', csr, '-out', out, '-startdate', timeText(from), '-enddate', timeText(to)],
      ...['-extfile', this.#write('extensions', (leaf.extensions ?? []).join('\n'))]
    );
    return { key, cert: readFileSync(out, 'utf8') };
  }

  close(): void {
    rmSync(this.#directory, { recursive: true });
  }

  /** Writes a configuration for one certificate: `openssl ca` keeps a list of those that it has made. */
  #config(): string {
    const list = this.#write('index', '');
    this.#write('index.attr', 'unique_subject = no\n');
    return this.#write(
      'ca.conf',
      [
        '[ca]',
        'default_ca = it',
        '[it]',
        `database = ${list}`,
        `new_certs_dir = ${this.#directory}`,
        'rand_serial = yes',
        'default_md = sha256',
        'policy = any',
        'unique_subject = no',
        '[any]',
        'commonName = optional',
      ].join('\n')
    );
  }

  #path(name: string): string {
    return join(this.#directory, `${this.#count++}-${name}`);
  }

  #write(name: string, text: string): string {
    const path = this.#path(name);
    writeFileSync(path, text);
    return path;
  }

  #openssl(...args: string[]): void {
    execFileSync('openssl', args, { stdio: 'pipe' });
  }
}

/**
 * Returns a key of the attacker that looks like the key of a certificate: its public half is that of the
 * certificate, so that OpenSSL accepts the pair, but its private half is another one.
 */
export function keyWithPublicHalfOf(key: string, certificateKey: string): string {
  const mine = createPrivateKey(key).export({ format: 'jwk' });
  const theirs = createPrivateKey(certificateKey).export({ format: 'jwk' });
  return createPrivateKey({ key: { ...theirs, d: mine.d! }, format: 'jwk' })
    .export({ type: 'pkcs8', format: 'pem' })
    .toString();
}

export function credentialsOf(
  { key, cert }: Signer,
  ca: Credentials['ca'],
  ...chain: Signer[]
): Credentials {
  return { key, cert: [cert, ...chain.map((each) => each.cert)].join(''), ca };
}

function timeText(time: Date): string {
  return `${time.toISOString().replace(/\.\d+|[-:T]/g, '')}`;
}

const HOUR_MS = 3_600_000;
const DAY_MS = 24 * HOUR_MS;
