/**
 * The trust of a cloud gateway: its CA, which is generated at the first start and read from the secrets later; its own
 * certificate, which is renewed in time; and the rollover from one CA to the next.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import { type Clock, systemClock } from '../base/clock.ts';
import type { TrustProvider } from '../control/index.ts';
import { ApiMisuseError, CertificateError, ConflictError, EnvironmentError } from '../errors.ts';
import { errorFields, type Logger, silentLogger } from '../observe/index.ts';
import {
  type CaMaterial,
  CERTIFICATE_AUTHORITY_DEFAULTS,
  CertificateAuthority,
  type CertificateRenewerOptions,
  type Credentials,
  createSigningRequest,
  encryptPrivateKey,
  GENERATE_CA_DEFAULTS,
  type GeneratedCa,
  generateCa,
  generateGatewayKey,
  type IssueOptions,
  type KeyType,
} from '../pki/index.ts';
import type { Secrets, Store } from '../store/index.ts';
import { CaSecrets, type CaSet } from './ca-secrets.ts';
import { CertificateKeeper } from './certificate-keeper.ts';
import { locationOf } from './secret-text.ts';

export interface AuthorityKeeperOptions
  extends Pick<CertificateRenewerOptions, 'clock' | 'random'> {
  /** Lower-case DNS name that is a part of every identity. */
  readonly trustDomain: string;
  /** Holds the certificates and keys of the CAs. */
  readonly secrets: Secrets;
  /** Holds the tokens, certificate records and revocations of the CA. */
  readonly store: Store;
  /** Encrypts the CAs' private keys at rest. Without it they are stored in the clear. */
  readonly passphrase?: string | undefined;
  /** The key type of a CA that is generated; default `p256`. Gateways always have P-256. */
  readonly keyType?: KeyType;
  /** Whether a root signs the CA that is generated; the gateway never needs the root's key again. Default false. */
  readonly intermediate?: boolean;
  /** Lifetime of gateways' certificates, in ms; default 30 days. */
  readonly certificateLifetimeMs?: number;
  /** Receives the log lines for an operator. Default: nothing is logged. */
  readonly logger?: Logger | undefined;
}

/** The values of options that are left out: the defaults of `generateCa` and `CertificateAuthority`. */
export const AUTHORITY_KEEPER_DEFAULTS: Readonly<{
  keyType: KeyType;
  intermediate: boolean;
  certificateLifetimeMs: number;
}> = Object.freeze({
  keyType: GENERATE_CA_DEFAULTS.keyType,
  intermediate: GENERATE_CA_DEFAULTS.intermediate,
  certificateLifetimeMs: CERTIFICATE_AUTHORITY_DEFAULTS.certificateLifetimeMs,
});

export interface AuthorityKeeperEvents {
  /** The cloud gateway has a new certificate or a new trust bundle. */
  credentials: [credentials: Credentials];
  /** A certificate was issued to the holder of an older one. */
  renewal: [renewal: { readonly site: string; readonly serial: string }];
  refusedRenewal: [refusal: { readonly certificate: X509Certificate; readonly error: Error }];
  /** Another machine has retired a CA: what it has issued is refused from now on, see `retired`. */
  retired: [];
  /** The CA expires soon, or has expired; or the CAs that another machine has stored cannot be used. */
  problem: [problem: { readonly error: Error }];
}

/**
 * Owns the CA of a cloud gateway. A CA that has expired can be replaced by `prepare` and `activate`.
 *
 * Several machines may share the secrets (`Secrets.watch`). They have one CA, and each its own certificate. A step of a
 * rollover that one of them takes comes into force on all.
 */
export class AuthorityKeeper
  extends EventEmitter<AuthorityKeeperEvents>
  implements AsyncDisposable
{
  readonly authority: CertificateAuthority;
  /** Answers the trust and renewal questions of a `ControlServer`. */
  readonly provider: TrustProvider;
  readonly #cas: CaSecrets;
  readonly #options: AuthorityKeeperOptions;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #retired: readonly X509Certificate[];
  readonly #certificate: CertificateKeeper;
  #closing: Promise<void> | undefined;
  #cancelWatch: () => void = () => {};
  readonly #unfollow: () => void;
  /** Whether the CAs are read again after the step that is under way. */
  #isBehind = false;
  /** Settles when no step of a rollover is under way. */
  #steps: Promise<unknown> = Promise.resolve();
  #lastWarning: string | undefined;

  private constructor(
    authority: CertificateAuthority,
    credentials: Credentials,
    cas: CaSecrets,
    options: AuthorityKeeperOptions,
    retired: readonly string[]
  ) {
    super();
    const { logger = silentLogger, clock = systemClock, random } = options;
    this.authority = authority;
    this.#retired = retired.map(signingCertificateOf);
    this.#cas = cas;
    this.#options = options;
    this.#logger = logger;
    this.#clock = clock;
    this.#certificate = new CertificateKeeper({
      credentials,
      renew: async (csrPem) => ({
        certificatePem: await ownCertificate(authority, csrPem),
        caPem: authority.trustBundlePem,
      }),
      apply: (renewed) => void this.emit('credentials', renewed),
      logger,
      about: 'own certificate: ',
      remedy: 'the CA has expired, prepare and activate another one',
      clock,
      ...(random && { random }),
    });
    authority.on('trust', () => {
      this.#certificate.renew();
      this.#watch();
    });
    this.provider = {
      trust: (certificate) => ({
        caPem: authority.trustBundlePem,
        renew: !authority.isCurrent(certificate),
      }),
      renew: async (certificate, csrPem) => {
        const { certificatePem, identity, serial } = await authority
          .renew(certificate, csrPem)
          .catch((error: Error) => {
            this.emit('refusedRenewal', { certificate, error });
            throw error;
          });
        if (identity.role === 'site') this.emit('renewal', { site: identity.site, serial });
        return { certificatePem, caPem: authority.trustBundlePem };
      },
    };
    this.#unfollow = cas.watch(() => this.#follow());
    // Another machine may have taken a step since the CAs were read.
    if (cas.areShared) this.#follow();
    this.#watch();
  }

  /**
   * Loads the CA, or generates one. A CA that has expired is not an error: `caWarning` reports it.
   *
   * @throws {CertificateError} if a CA cannot be used, or its key cannot be read.
   * @throws {EnvironmentError} if secrets cannot be read or written.
   * @throws {ConfigError} if `ca.json` is damaged.
   * @throws {StoreError} if the store cannot be read or written.
   * @throws {ApiMisuseError} if an option is out of its range.
   */
  static async open(options: AuthorityKeeperOptions): Promise<AuthorityKeeper> {
    const { secrets, passphrase } = options;
    if (passphrase === '') throw new ApiMisuseError('the passphrase of a CA must not be empty');
    const cas = new CaSecrets(secrets, passphrase);
    const { authority, retired } = await load(options, cas).catch((cause: Error) => {
      if (!(cause instanceof CertificateError)) throw cause;
      const where = locationOf(secrets, 'ca.pem').replace(/[/\\]?ca\.pem$/, '') || 'the secrets';
      throw new CertificateError(`the CA certificates in ${where}: ${cause.message}`, { cause });
    });
    try {
      const { privateKeyPem } = generateGatewayKey();
      const csrPem = createSigningRequest(privateKeyPem);
      const cert = await ownCertificate(authority, csrPem, { evenIfExpired: true });
      const credentials = { key: privateKeyPem, cert, ca: authority.trustBundlePem };
      return new AuthorityKeeper(authority, credentials, cas, options, retired);
    } catch (error) {
      await authority.close();
      throw error;
    }
  }

  /** The key, certificate and trust bundle of the cloud gateway. */
  get credentials(): Credentials {
    return this.#certificate.credentials;
  }

  /**
   * Takes the first step of a CA rollover: all gateways trust the next CA too. Each step is stored before it is in
   * force, and can be repeated after a failure.
   *
   * @param next the operator's own CA; by default a new one is generated
   */
  async prepare(next?: CaMaterial): Promise<void> {
    await this.#step(async () => {
      const { rollover } = this.authority;
      if (rollover !== 'none') {
        throw new ConflictError(`a CA rollover is already in progress: ${rollover}`);
      }
      const ca = next ?? newCa(this.#options);
      const kept = await atRest(ca, this.#options.passphrase);
      await this.authority.prepareCa(ca, () => this.#cas.prepare(kept));
    });
  }

  /** Takes the second step: the next CA signs from now on, and all gateways renew. */
  activate(): Promise<void> {
    return this.#step(() => this.authority.activateCa(() => this.#cas.activate()));
  }

  /** Takes the last step: certificates of the old CA are no longer accepted. */
  retire(): Promise<void> {
    return this.#step(() => {
      return this.authority.retireCa(async () => {
        await this.#cas.retire();
        this.#retired = (await this.#cas.read())!.retired.map(signingCertificateOf);
      });
    });
  }

  /** Signing certificates of retired CAs; certificates that they issued are refused. */
  get retired(): readonly X509Certificate[] {
    return this.#retired;
  }

  /** When the signing CA and every certificate that it has issued expire. It may be in the past. */
  get caNotAfter(): Date {
    return this.authority.notAfter;
  }

  /** When the gateway's own certificate expires. */
  get certificateNotAfter(): Date {
    return this.#certificate.notAfter;
  }

  /** Whether the CA has expired by the clock of now. */
  get isCaExpired(): boolean {
    return this.caNotAfter.getTime() <= this.#clock.wallMs();
  }

  /** A warning for the operator, from 60 days before the CA expires; undefined before that. */
  get caWarning(): string | undefined {
    const { caNotAfter } = this;
    const leftMs = caNotAfter.getTime() - this.#clock.wallMs();
    const end = caNotAfter.toISOString();
    if (leftMs > WARNING_MS) return undefined;
    return leftMs > 0
      ? `the CA expires on ${end}, and every certificate with it: change it before`
      : `the CA expired on ${end}, and every certificate with it: prepare and activate another one, then enrol the sites with new tokens`;
  }

  /** Stops. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  async #close(): Promise<void> {
    this.#cancelWatch();
    this.#unfollow();
    await this.#steps;
    await this.#certificate.close();
    await this.authority.close();
    this.removeAllListeners();
  }

  /** Takes a step after those before it, and after those that other machines have taken. */
  #step(take: () => Promise<void>): Promise<void> {
    return this.#exclusively(async () => {
      if (this.#cas.areShared) await this.#readAgain();
      await take();
    });
  }

  /** Puts what another machine has stored into force. */
  #follow(): void {
    if (this.#isBehind) return;
    this.#isBehind = true;
    this.#exclusively(() => this.#readAgain()).catch((error: Error) => {
      const text = `the CAs that another machine has stored are not in force here: ${error.message}`;
      this.#logger.warn({ event: 'ca_not_followed', ...errorFields(error) }, text);
      this.emit('problem', { error });
    });
  }

  async #readAgain(): Promise<void> {
    this.#isBehind = false;
    const { retired, ...cas } = (await this.#cas.read()) ?? noCas();
    await this.authority.follow(cas);
    const before = this.#retired.length;
    this.#retired = retired.map(signingCertificateOf);
    if (this.#retired.length > before) this.emit('retired');
  }

  #exclusively(run: () => Promise<void>): Promise<void> {
    const done = this.#steps.then(run);
    this.#steps = done.catch(() => {});
    return done;
  }

  /** Reports that the CA expires or has expired, once for each warning. */
  #watch(): void {
    this.#cancelWatch();
    const { caWarning } = this;
    if (caWarning !== undefined && caWarning !== this.#lastWarning) {
      this.#logger.warn({ event: 'ca_expiring' }, caWarning);
      this.emit('problem', { error: new CertificateError(caWarning) });
    }
    this.#lastWarning = caWarning;
    const onTime = (): void => {
      this.#watch();
      // What could not be read before is tried again.
      if (this.#cas.areShared) this.#follow();
    };
    this.#cancelWatch = this.#clock.after(HOUR_MS, onTime, true);
  }
}

function newCa({ trustDomain, keyType, intermediate, clock }: AuthorityKeeperOptions): GeneratedCa {
  return generateCa({
    trustDomain,
    ...(keyType && { keyType }),
    ...(intermediate && { intermediate }),
    ...(clock && { clock }),
  });
}

async function ownCertificate(
  authority: CertificateAuthority,
  csrPem: string,
  options: IssueOptions = {}
): Promise<string> {
  const identity = { trustDomain: authority.trustDomain, role: 'cloud' } as const;
  return (await authority.issue(csrPem, identity, options)).certificatePem;
}

/** Opens the authority with the CAs that are in the secrets, where the first one is generated. */
async function load(
  options: AuthorityKeeperOptions,
  cas: CaSecrets
): Promise<{ authority: CertificateAuthority; retired: readonly string[] }> {
  const { trustDomain, store, certificateLifetimeMs, clock } = options;
  const { current, retired, ...others } = await casInSecrets(options, cas);
  const authority = await CertificateAuthority.open({
    trustDomain,
    store,
    ...current,
    ...others,
    ...(certificateLifetimeMs === undefined ? {} : { certificateLifetimeMs }),
    ...(clock && { clock }),
  });
  return { authority, retired };
}

/** Returns the CAs when they are stored as they should be. */
async function casInSecrets(options: AuthorityKeeperOptions, cas: CaSecrets): Promise<CaSet> {
  const { logger = silentLogger } = options;
  for (let left = MAX_ATTEMPTS; ; left--) {
    try {
      if ((await cas.read()) === undefined) await begin(options, cas);
      await cas.removeRetiredKeys();
      for (const path of await cas.protectKeys()) {
        logger.info({ event: 'ca_key_encrypted', path }, `${path}: encrypted again`);
      }
      return (await cas.read())!;
    } catch (error) {
      // Another machine that shares the secrets has done the same at the same time.
      if (!(error instanceof ConflictError) || left === 1) throw error;
    }
  }
}

/** Generates the first CA. */
async function begin(options: AuthorityKeeperOptions, cas: CaSecrets): Promise<void> {
  const { passphrase, logger = silentLogger } = options;
  const { intermediate = AUTHORITY_KEEPER_DEFAULTS.intermediate } = options;
  const { rootPrivateKeyPem, ...made } = newCa(options);
  // Only this key can sign another CA below the root, so both are stored in one commit.
  const rootKey = intermediate ? await keyAtRest(rootPrivateKeyPem, passphrase) : undefined;
  const path = await cas.begin(await atRest(made, passphrase), rootKey);
  if (path === undefined) return;
  logger.warn(
    { event: 'root_key_stored', path },
    `the key of the root CA is in ${path}: move it to a safe place, the gateway does not need it`
  );
}

/** Returns the first certificate of a CA's chain. */
function signingCertificateOf(chainPem: string): X509Certificate {
  return new X509Certificate(chainPem);
}

function noCas(): never {
  throw new EnvironmentError('the CAs are no longer in the secrets: restore them from a backup');
}

async function atRest(
  { certificatePem, privateKeyPem }: CaMaterial,
  passphrase?: string
): Promise<CaMaterial> {
  return { certificatePem, privateKeyPem: await keyAtRest(privateKeyPem, passphrase) };
}

/** Returns the key as PKCS#8, encrypted if there is a passphrase. */
async function keyAtRest(privateKeyPem: string, passphrase: string | undefined): Promise<string> {
  return passphrase === undefined ? privateKeyPem : encryptPrivateKey(privateKeyPem, passphrase);
}

/** How often a start is tried while other machines change the CAs. */
const MAX_ATTEMPTS = 5;
const HOUR_MS = 3_600_000;
const WARNING_MS: number = 60 * 24 * HOUR_MS;
