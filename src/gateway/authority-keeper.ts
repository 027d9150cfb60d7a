/**
 * The trust of a cloud gateway: its CA, which is made at the first start and then read from the secrets; its own
 * certificate, which is renewed in time; and the change from one CA to the next.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import { EventEmitter } from 'eventemitter3';
import { type Clock, systemClock } from '../base/clock.ts';
import type { TrustProvider } from '../control/index.ts';
import { ApiMisuseError, CertificateError } from '../errors.ts';
import { type Logger, silentLogger } from '../observe/index.ts';
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
import { CaSecrets } from './ca-secrets.ts';
import { CertificateKeeper } from './certificate-keeper.ts';
import { locationOf } from './secret-text.ts';

export interface AuthorityKeeperOptions
  extends Pick<CertificateRenewerOptions, 'clock' | 'random'> {
  /** Lower-case DNS name that stands in every identity. */
  readonly trustDomain: string;
  /** Keeps the CAs. */
  readonly secrets: Secrets;
  /** Keeps what the CA has decided. */
  readonly store: Store;
  /** Encrypts the CAs' private keys at rest. They are kept in the clear without. */
  readonly passphrase?: string | undefined;
  /** The type of the key of a CA that is made; default `p256`. Gateways always have P-256. */
  readonly keyType?: KeyType;
  /** Whether a CA that is made is signed by a root whose key nothing here needs; default false. */
  readonly intermediate?: boolean;
  /** Lifetime of gateways' certificates, in ms; default 30 days. */
  readonly certificateLifetimeMs?: number;
  /** Takes the lines for an operator. Default: nobody is told. */
  readonly logger?: Logger | undefined;
}

/** What holds for options that are left out: what `generateCa` and `CertificateAuthority` have. */
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
  /** The cloud gateway has a new certificate, or trusts others than before. */
  credentials: [credentials: Credentials];
  /** A certificate was issued to the holder of an older one. */
  renewal: [renewal: { readonly site: string; readonly serial: string }];
  refusedRenewal: [refusal: { readonly certificate: X509Certificate; readonly error: Error }];
  /** The CA runs out soon, or has run out. */
  problem: [problem: { readonly error: CertificateError }];
}

/** Keeps the CA of a cloud gateway. One whose CA has run out can be given another. */
export class AuthorityKeeper
  extends EventEmitter<AuthorityKeeperEvents>
  implements AsyncDisposable
{
  readonly authority: CertificateAuthority;
  /** For a `ControlServer`. */
  readonly provider: TrustProvider;
  readonly #cas: CaSecrets;
  readonly #options: AuthorityKeeperOptions;
  readonly #logger: Logger;
  readonly #clock: Clock;
  #retired: readonly X509Certificate[];
  readonly #certificate: CertificateKeeper;
  #closing: Promise<void> | undefined;
  #cancelWatch: () => void = () => {};
  #toldWarning: string | undefined;

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
      remedy: 'its CA has run out, prepare and activate another one',
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
    this.#watch();
  }

  /**
   * Takes up the CA, or makes one. A CA that has run out is no error: `caWarning` says so.
   *
   * @throws {CertificateError} if a CA is unfit, or its key cannot be read.
   * @throws {EnvironmentError} if secrets cannot be read or written.
   * @throws {ConfigError} if what says which CA is which cannot be read.
   * @throws {ApiMisuseError} if an option is out of its range.
   */
  static async open(options: AuthorityKeeperOptions): Promise<AuthorityKeeper> {
    const { secrets, passphrase, logger = silentLogger } = options;
    const { intermediate = AUTHORITY_KEEPER_DEFAULTS.intermediate } = options;
    if (passphrase === '') throw new ApiMisuseError('the passphrase of a CA must not be empty');
    const cas = new CaSecrets(secrets, passphrase);
    if ((await cas.read()) === undefined) {
      const { rootPrivateKeyPem, ...made } = newCa(options);
      // Without this key there is never another CA below the root, so they are kept together.
      const rootKey = intermediate ? await keyAtRest(rootPrivateKeyPem, passphrase) : undefined;
      const path = await cas.begin(await atRest(made, passphrase), rootKey);
      if (path !== undefined) {
        logger.warn(
          { path },
          `the key of the root CA is in ${path}: keep it elsewhere, nothing here needs it`
        );
      }
    }
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

  /** What the cloud gateway shows, and whom it trusts. */
  get credentials(): Credentials {
    return this.#certificate.credentials;
  }

  /**
   * Takes the first step of a change of CA: everybody learns to trust the next one, too. Each step is in the
   * secrets before it is in force, and can be repeated when it has failed.
   *
   * @param next the operator's; by default a new one is made
   */
  async prepare(next?: CaMaterial): Promise<void> {
    if (this.authority.rollover !== 'none') {
      throw new ApiMisuseError(`a change of CA is under way: ${this.authority.rollover}`);
    }
    const ca = next ?? newCa(this.#options);
    const kept = await atRest(ca, this.#options.passphrase);
    await this.authority.prepareCa(ca, () => this.#cas.prepare(kept));
  }

  /** Takes the second step: the next CA signs from now on, and everybody renews. */
  activate(): Promise<void> {
    return this.authority.activateCa(() => this.#cas.activate());
  }

  /** Takes the last step: certificates of the old CA are worth nothing any more. */
  retire(): Promise<void> {
    return this.authority.retireCa(async () => {
      await this.#cas.retire();
      this.#retired = (await this.#cas.read())!.retired.map(signingCertificateOf);
    });
  }

  /** Signing certificates of CAs that have gone out of use: what they issued is refused. */
  get retired(): readonly X509Certificate[] {
    return this.#retired;
  }

  /** When the CA that signs now runs out, and with it all that it has issued. It may have passed. */
  get caNotAfter(): Date {
    return this.authority.notAfter;
  }

  /** What an operator has to know about the end of the CA, from 60 days before it on. */
  get caWarning(): string | undefined {
    const { caNotAfter } = this;
    const leftMs = caNotAfter.getTime() - this.#clock.wallMs();
    const end = caNotAfter.toISOString();
    if (leftMs > WARNING_MS) return undefined;
    return leftMs > 0
      ? `the CA runs out on ${end}, and every certificate with it: change it before`
      : `the CA ran out on ${end}, and every certificate with it: prepare and activate another one, then enrol the sites with new tokens`;
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
    await this.#certificate.close();
    await this.authority.close();
    this.removeAllListeners();
  }

  /** Tells of the end of the CA, once for each warning. */
  #watch(): void {
    this.#cancelWatch();
    const { caWarning } = this;
    if (caWarning !== undefined && caWarning !== this.#toldWarning) {
      this.#logger.warn({}, caWarning);
      this.emit('problem', { error: new CertificateError(caWarning) });
    }
    this.#toldWarning = caWarning;
    this.#cancelWatch = this.#clock.after(HOUR_MS, () => this.#watch(), true);
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

/** Takes up the CAs of the secrets. */
async function load(
  {
    trustDomain,
    store,
    certificateLifetimeMs,
    clock,
    logger = silentLogger,
  }: AuthorityKeeperOptions,
  cas: CaSecrets
): Promise<{ authority: CertificateAuthority; retired: readonly string[] }> {
  await cas.removeRetiredKeys();
  for (const path of await cas.protectKeys()) logger.info({ path }, `${path}: encrypted anew`);
  const { current, retired, ...others } = (await cas.read())!;
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

/** The first one of a CA's chain. */
function signingCertificateOf(chainPem: string): X509Certificate {
  return new X509Certificate(chainPem);
}

async function atRest(
  { certificatePem, privateKeyPem }: CaMaterial,
  passphrase?: string
): Promise<CaMaterial> {
  return { certificatePem, privateKeyPem: await keyAtRest(privateKeyPem, passphrase) };
}

/** PKCS#8, under the passphrase if there is one. */
async function keyAtRest(privateKeyPem: string, passphrase: string | undefined): Promise<string> {
  return passphrase === undefined ? privateKeyPem : encryptPrivateKey(privateKeyPem, passphrase);
}

const HOUR_MS = 3_600_000;
const WARNING_MS: number = 60 * 24 * HOUR_MS;
