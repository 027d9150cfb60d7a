/**
 * The edge's key and certificate: fetched with the token at the first start, then read from the state
 * directory, and renewed in time. One that has run out is replaced with a new token.
 *
 * An operator who has certificates of another CA puts `key.pem`, `certificate.pem` (the gateway's, then
 * those between it and the root) and `ca.pem` (the roots) there instead, and needs no token.
 * @module
 */
import { createPrivateKey, X509Certificate } from 'node:crypto';
import {
  CertificateError,
  EnrolmentError,
  type EnrolOptions,
  enrol,
  type GatewayCredentials,
  type GatewayIdentity,
  identityOfCertificate,
  identityOfCredentials,
} from 'virtual-presence';
import { readText, type StateDirectory } from '../program/files.ts';

type SiteIdentity = GatewayIdentity & { readonly role: 'site' };

export class EdgeTrust {
  readonly credentials: GatewayCredentials;
  readonly identity: SiteIdentity;
  readonly #state: StateDirectory;
  readonly #tokenFile: string;
  readonly #proxy: EnrolOptions['proxy'];
  /** A token that is no good is not tried twice. */
  #refusedToken = '';
  /** What a token has brought and the disk did not take: the token is spent. */
  #unsaved: GatewayCredentials | undefined;

  private constructor(
    credentials: GatewayCredentials,
    identity: SiteIdentity,
    state: StateDirectory,
    tokenFile: string,
    proxy: EnrolOptions['proxy']
  ) {
    this.credentials = credentials;
    this.identity = identity;
    this.#state = state;
    this.#tokenFile = tokenFile;
    this.#proxy = proxy;
  }

  /**
   * @throws {EnrolmentError} if the token is refused.
   * @throws {CertificateError} if the certificate is not a site's; or is of another CA or has run out, and the
   * token file has no new token.
   */
  static async open(
    state: StateDirectory,
    tokenFile: string,
    proxy?: EnrolOptions['proxy']
  ): Promise<EdgeTrust> {
    finishChange(state);
    if (!state.has(CERTIFICATE)) {
      const token = readText('the token file', tokenFile);
      checkRoom(state);
      save(state, await enrol(token, { proxy }));
    }
    const credentials = read(state);
    const trust = new EdgeTrust(credentials, siteOf(credentials, state), state, tokenFile, proxy);
    const fault = faultOf(credentials, state);
    if (fault === undefined) return trust;
    try {
      return new EdgeTrust(await trust.enrolAnew(), trust.identity, state, tokenFile, proxy);
    } catch (cause) {
      const reason = (cause as Error).message;
      throw new CertificateError(`${fault}: put a new token into ${tokenFile} (${reason})`, {
        cause,
      });
    }
  }

  /** Keeps what a renewal has brought. */
  save(credentials: GatewayCredentials): void {
    save(this.#state, credentials);
    this.#unsaved = undefined;
  }

  /**
   * Replaces a certificate that has run out, with the token that is in the file now. If a token has brought a
   * certificate before that could not be stored, that one is stored.
   *
   * @throws {EnrolmentError} if it is refused, was before, or is for another site.
   * @throws {EnvironmentError} if the certificate cannot be stored; call again.
   */
  async enrolAnew(): Promise<GatewayCredentials> {
    if (this.#unsaved !== undefined) return this.#keep(this.#unsaved);
    const token = readText('the token file', this.#tokenFile);
    if (token === this.#refusedToken) throw new EnrolmentError('used', 'no new token is there');
    checkRoom(this.#state);
    try {
      const enrolment = await enrol(token, { proxy: this.#proxy });
      const { site } = enrolment.identity as SiteIdentity;
      if (site !== this.identity.site) {
        const fault = `the token is for "${site}", not for "${this.identity.site}"`;
        throw new EnrolmentError('wrong-site', fault);
      }
      return this.#keep(enrolment);
    } catch (error) {
      // Who cannot be reached, or is somebody else, says nothing about the token.
      if (error instanceof EnrolmentError && error.fault !== 'wrong-ca') this.#refusedToken = token;
      throw error;
    }
  }

  #keep(credentials: GatewayCredentials): GatewayCredentials {
    this.#unsaved = credentials;
    this.save(credentials);
    return credentials;
  }
}

/** A token is good once: that its certificate can be stored is tried before. */
function checkRoom(state: StateDirectory): void {
  state.write(PROBE, ' '.repeat(ROOM_BYTES));
  state.remove(PROBE);
}

/** In this order: whenever it is interrupted, `finishChange` finds a key that fits the certificate. */
function save(state: StateDirectory, credentials: GatewayCredentials): void {
  // The change before may have been interrupted: its key is not to be written over.
  finishChange(state);
  state.write(NEXT_KEY, credentials.privateKeyPem);
  state.write(CA, credentials.caPem);
  state.write(CERTIFICATE, credentials.certificatePem);
  state.rename(NEXT_KEY, KEY);
}

function finishChange(state: StateDirectory): void {
  if (!state.has(NEXT_KEY)) return;
  const isDone = state.has(CERTIFICATE) && fits(state.read(NEXT_KEY), state.read(CERTIFICATE));
  if (isDone) state.rename(NEXT_KEY, KEY);
  else state.remove(NEXT_KEY);
}

function fits(privateKeyPem: string, certificatePem: string): boolean {
  try {
    return new X509Certificate(certificatePem).checkPrivateKey(createPrivateKey(privateKeyPem));
  } catch {
    return false;
  }
}

function read(state: StateDirectory): GatewayCredentials {
  const [privateKeyPem, certificatePem, caPem] = [KEY, CERTIFICATE, CA].map((name) =>
    state.read(name)
  ) as [string, string, string];
  return { privateKeyPem, certificatePem, caPem };
}

/** @throws {CertificateError} if the certificate cannot be read, or is not a site's. */
function siteOf({ certificatePem }: GatewayCredentials, state: StateDirectory): SiteIdentity {
  const path = state.pathOf(CERTIFICATE);
  let identity: GatewayIdentity;
  try {
    identity = identityOfCertificate(new X509Certificate(certificatePem));
  } catch (cause) {
    throw new CertificateError(`${path} is damaged: ${(cause as Error).message}`, { cause });
  }
  if (identity.role === 'site') return identity;
  throw new CertificateError(`${path} is not the one of a site`);
}

/** What the cloud would refuse anyway is told here, where it can be mended. */
function faultOf(credentials: GatewayCredentials, state: StateDirectory): string | undefined {
  try {
    identityOfCredentials(credentials);
  } catch (error) {
    const files = `${KEY}, ${CERTIFICATE} and ${CA} in ${state.path}`;
    return `${files} do not fit: ${(error as Error).message}`;
  }
  const { validTo } = new X509Certificate(credentials.certificatePem);
  if (Date.now() < Date.parse(validTo)) return undefined;
  return `${state.pathOf(CERTIFICATE)} ran out on ${validTo}`;
}

const KEY = 'key.pem';
const NEXT_KEY = 'next-key.pem';
const CA = 'ca.pem';
/** Written last: where it is, the others are too. */
const CERTIFICATE = 'certificate.pem';
const PROBE = 'probe';
/** More than a key, a certificate with its chain, and the trust anchors take. */
const ROOM_BYTES = 65_536;
