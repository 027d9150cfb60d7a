/**
 * Whom the cloud gateway trusts, and why it is trusted: its CA, made at the first start and then read from
 * the state directory; its own certificate, renewed in time; the change from one CA to the next.
 * @module
 */
import { X509Certificate } from 'node:crypto';
import {
  ApiMisuseError,
  type CaMaterial,
  CertificateAuthority,
  CertificateError,
  CertificateRenewer,
  ConfigError,
  createSigningRequest,
  encryptPrivateKey,
  type GatewayCredentials,
  generateCa,
  generateGatewayKey,
  type KeyType,
  type Store,
  type TrustProvider,
  type TunnelCredentials,
} from 'virtual-presence';
import { tunnelCredentials } from '../program/credentials.ts';
import { readText, type StateDirectory } from '../program/files.ts';
import { CaFiles } from './ca-files.ts';
import type { TrustConfig } from './config.ts';

export interface CloudTrustOptions {
  readonly trustDomain: string;
  readonly config: TrustConfig;
  readonly state: StateDirectory;
  readonly store: Store;
  readonly log: (line: string) => void;
  /** A certificate was issued to the holder of an older one. */
  readonly onRenewal: (site: string, serial: string) => void;
  readonly onRefusedRenewal: (certificate: X509Certificate, error: Error) => void;
}

export class CloudTrust {
  readonly authority: CertificateAuthority;
  /** For a `ControlServer`. */
  readonly provider: TrustProvider;
  /** Called when the cloud gateway has a new certificate, or trusts others than before. */
  onCredentials: (credentials: TunnelCredentials) => void = () => {};
  readonly #files: CaFiles;
  readonly #options: CloudTrustOptions;
  readonly #passphrase: string | undefined;
  #retired: readonly X509Certificate[];
  readonly #renewer: CertificateRenewer;

  private constructor(
    authority: CertificateAuthority,
    credentials: GatewayCredentials,
    files: CaFiles,
    options: CloudTrustOptions,
    passphrase: string | undefined,
    retired: readonly string[]
  ) {
    this.authority = authority;
    this.#retired = retired.map(signingCertificateOf);
    this.#files = files;
    this.#options = options;
    this.#passphrase = passphrase;
    this.#renewer = new CertificateRenewer({
      credentials,
      renew: (csrPem) => this.#ownCertificate(csrPem),
      apply: (renewed) => this.onCredentials(tunnelCredentials(renewed)),
    });
    this.#renewer.on('failed', (error, retryInMs) => {
      const seconds = Math.round(retryInMs / 1000);
      options.log(`own certificate: ${error.message}; trying again in ${seconds} s`);
    });
    authority.on('trust', () => void this.#follow());
    this.provider = {
      trust: (certificate) => ({
        caPem: authority.trustBundlePem,
        renew: !authority.isCurrent(certificate),
      }),
      renew: async (certificate, csrPem) => {
        const { certificatePem, identity, serial } = await authority
          .renew(certificate, csrPem)
          .catch((error: Error) => {
            options.onRefusedRenewal(certificate, error);
            throw error;
          });
        if (identity.role === 'site') options.onRenewal(identity.site, serial);
        return { certificatePem, caPem: authority.trustBundlePem };
      },
    };
  }

  static async open(options: CloudTrustOptions): Promise<CloudTrust> {
    const { trustDomain, config, state, log } = options;
    const passphrase = readPassphrase(config);
    const files = new CaFiles(state, passphrase);
    if (files.read() === undefined) {
      const { rootPrivateKeyPem, ...made } = generateCa({ trustDomain, ...keysOf(config) });
      // First: without this key there is never another CA below the root.
      if (config.intermediate) {
        const path = files.writeRootKey(await keyAtRest(rootPrivateKeyPem, passphrase));
        log(`the key of the root CA is in ${path}: keep it elsewhere, nothing here needs it`);
      }
      files.write(await atRest(made, passphrase));
    }
    const { authority, retired } = await load(options, files).catch((cause: Error) => {
      if (!(cause instanceof CertificateError)) throw cause;
      throw new CertificateError(`the CA certificates in ${state.path}: ${cause.message}`, {
        cause,
      });
    });
    const { privateKeyPem } = generateGatewayKey();
    const csrPem = createSigningRequest(privateKeyPem);
    const identity = { trustDomain, role: 'cloud' } as const;
    const { certificatePem } = await authority.issue(csrPem, identity);
    const credentials = { privateKeyPem, certificatePem, caPem: authority.trustBundlePem };
    return new CloudTrust(authority, credentials, files, options, passphrase, retired);
  }

  /** What the cloud gateway shows, and whom it trusts. */
  get credentials(): TunnelCredentials {
    return tunnelCredentials(this.#renewer.credentials);
  }

  /**
   * The first step of a change of CA: everybody learns to trust the next one, too. Each step is in the files
   * before it is in force, and can be repeated when it has failed.
   *
   * @param next the operator's; by default a new one is made
   */
  async prepare(next?: CaMaterial): Promise<void> {
    const { trustDomain, config } = this.#options;
    if (this.authority.rollover !== 'none') {
      throw new ApiMisuseError(`a change of CA is under way: ${this.authority.rollover}`);
    }
    const ca = next ?? generateCa({ trustDomain, ...keysOf(config) });
    const kept = await atRest(ca, this.#passphrase);
    this.authority.prepareCa(ca, () => this.#files.prepare(kept));
  }

  /** The second step: the next CA signs from now on, and everybody renews. */
  activate(): void {
    this.authority.activateCa(() => this.#files.activate());
  }

  /** The last step: certificates of the old CA are worth nothing any more. */
  retire(): void {
    this.authority.retireCa(() => {
      this.#files.retire();
      this.#retired = this.#files.read()!.retired.map(signingCertificateOf);
    });
  }

  /** Signing certificates of CAs that have gone out of use: what they issued is refused. */
  get retired(): readonly X509Certificate[] {
    return this.#retired;
  }

  /** When the CA that signs now runs out, and with it all that it has issued. */
  get caNotAfter(): Date {
    return new Date(signingCertificateOf(this.authority.certificatePem).validTo);
  }

  close(): void {
    this.#renewer.close();
    this.authority.close();
  }

  /** Renewals join one that is under way, which may be of the step before. What fails is tried again by itself. */
  async #follow(): Promise<void> {
    try {
      do await this.#renewer.renewNow();
      while (!this.#isUpToDate());
    } catch {
      // told as `failed`
    }
  }

  #isUpToDate(): boolean {
    const { authority } = this;
    const { certificatePem, caPem } = this.#renewer.credentials;
    const leaf = new X509Certificate(certificatePem);
    const isChain = certificatePem === leaf.toString() + authority.chainPem;
    return isChain && authority.isCurrent(leaf) && caPem === authority.trustBundlePem;
  }

  async #ownCertificate(csrPem: string): Promise<{ certificatePem: string; caPem: string }> {
    const { authority } = this;
    const identity = { trustDomain: authority.trustDomain, role: 'cloud' } as const;
    const { certificatePem } = await authority.issue(csrPem, identity);
    return { certificatePem, caPem: authority.trustBundlePem };
  }
}

/** The first one of a CA's chain. */
function signingCertificateOf(chainPem: string): X509Certificate {
  return new X509Certificate(chainPem);
}

function keysOf({ keyType, intermediate }: TrustConfig): {
  keyType: KeyType;
  intermediate: boolean;
} {
  return { keyType, intermediate };
}

/** @throws {ConfigError} if the file is there and empty. */
function readPassphrase({ passphraseFile }: TrustConfig): string | undefined {
  if (passphraseFile === undefined) return undefined;
  const passphrase = readText('the passphrase file', passphraseFile).trimEnd();
  if (passphrase !== '') return passphrase;
  throw new ConfigError('trust.passphraseFile', `the passphrase file ${passphraseFile} is empty`);
}

/** Takes up the CAs of the files. */
async function load(
  { trustDomain, config, store, log }: CloudTrustOptions,
  files: CaFiles
): Promise<{ authority: CertificateAuthority; retired: readonly string[] }> {
  files.removeRetiredKeys();
  for (const path of await files.protectKeys()) log(`${path}: encrypted anew`);
  const { current, retired, ...others } = files.read()!;
  const authority = await CertificateAuthority.load({
    trustDomain,
    store,
    ...current,
    ...others,
    certificateLifetimeMs: config.certificateLifetimeSeconds * 1000,
  });
  return { authority, retired };
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
