/**
 * Builds and signs certificates of CAs and of gateways, in the profile of
 * [RFC 5280](https://www.rfc-editor.org/rfc/rfc5280#section-4).
 * @module
 */
import crypto, { type KeyObject } from 'node:crypto';
import { checkThat } from '../base/option-check.ts';
import {
  type Asn1,
  bitString,
  boolean,
  commonName,
  decode,
  encodePem,
  extension,
  integer,
  octetString,
  oid,
  sequence,
  tagged,
  taggedBytes,
  time,
} from './der.ts';
import { signatureAlgorithmOf, signed, spkiDigest, spkiOf } from './keys.ts';
import { formatIdentity, type GatewayIdentity } from './names.ts';

/** The key that a CA signs with, and how certificates and CRLs refer to it. */
export interface Issuer {
  readonly privateKey: KeyObject;
  /** The CA's subject, a DER `Name`. */
  readonly name: Asn1;
  /** Content of its subject key identifier. */
  readonly keyId: Buffer;
}

/** When a certificate is valid, in ms since 1970; the encoding keeps whole seconds. */
export interface Validity {
  readonly notBeforeMs: number;
  readonly notAfterMs: number;
}

/**
 * Returns the validity of a certificate that is signed now, in whole seconds. It begins a little before now, for
 * gateways whose clock is slow: 5 minutes, or half the lifetime if that is less.
 *
 * @param limitMs the latest end
 */
export function validityOf(
  nowMs: number,
  lifetimeMs: number,
  limitMs: number = Number.POSITIVE_INFINITY
): Validity {
  const endMs = Math.min(nowMs + lifetimeMs, limitMs);
  return {
    notBeforeMs: wholeSeconds(backdated(nowMs, endMs - nowMs)),
    notAfterMs: wholeSeconds(endMs),
  };
}

/** Returns when something that is made now becomes valid: up to 5 minutes ago, see `validityOf`. */
export function backdated(nowMs: number, lifetimeMs: number): number {
  return nowMs - Math.min(MAX_BACKDATE_MS, lifetimeMs / 2);
}

/** @throws {ApiMisuseError} unless it is 1 s to 100 years. */
export function checkLifetime(name: string, ms: number): number {
  const isOk = typeof ms === 'number' && ms >= SECOND_MS && ms <= MAX_LIFETIME_MS;
  return checkThat(name, ms, isOk, '1 s to 100 years, in ms');
}

/** Draws a positive serial number of 16 bytes, 126 bits of them random, as lower-case hex. */
export function randomSerial(): string {
  const bytes = crypto.randomBytes(16);
  // The first byte makes the number positive and without a leading zero, which encoders treat differently.
  bytes[0] = (bytes[0]! & 0x7f) | 0x40;
  return bytes.toString('hex');
}

/** The fields of a new CA certificate. */
export interface CaSubject {
  readonly publicKey: KeyObject;
  /** A DER `Name`. */
  readonly name: Asn1;
  /** Content of its subject key identifier. */
  readonly keyId: Buffer;
  /** How many further CAs may be below it; undefined: any number. */
  readonly pathLength: number | undefined;
  /** The trust domain whose gateways it is for. */
  readonly trustDomain: string;
}

/** Makes the certificate of a CA: a root if issuer and subject have the same key, else an intermediate. */
export function signCa(issuer: Issuer, subject: CaSubject, validity: Validity): string {
  const { publicKey, name, keyId, pathLength, trustDomain } = subject;
  const below = pathLength === undefined ? [] : [integer(BigInt(pathLength))];
  return signCertificate(issuer, publicKey, name, randomSerial(), validity, [
    extension(BASIC_CONSTRAINTS, sequence(boolean(true), ...below), true),
    extension(KEY_USAGE, bitString(CERTIFICATES_AND_CRLS, 1), true),
    extension(SUBJECT_KEY_ID, octetString(keyId)),
    // A root has one too: all roots of a trust domain have the same name, and only this tells them apart.
    authorityKeyId(issuer.keyId),
    extension(SUBJECT_ALT_NAME, uriName(trustDomainUri(trustDomain))),
  ]);
}

/** Makes the certificate of a gateway, for use as a TLS client and as a TLS server. */
export function signEndEntity(
  issuer: Issuer,
  publicKey: KeyObject,
  identity: GatewayIdentity,
  serial: string,
  validity: Validity
): string {
  const name = commonName(identity.role === 'cloud' ? 'cloud' : identity.site);
  return signCertificate(issuer, publicKey, name, serial, validity, [
    extension(BASIC_CONSTRAINTS, sequence(), true),
    extension(KEY_USAGE, bitString(SIGNATURES, 7), true),
    extension(EXTENDED_KEY_USAGE, sequence(oid(SERVER_AUTH), oid(CLIENT_AUTH))),
    extension(SUBJECT_KEY_ID, octetString(spkiDigest(publicKey))),
    authorityKeyId(issuer.keyId),
    extension(SUBJECT_ALT_NAME, uriName(formatIdentity(identity))),
  ]);
}

/** Makes the extension in which certificates and CRLs name the key that signed them. */
export function authorityKeyId(keyId: Buffer): Asn1 {
  return extension(AUTHORITY_KEY_ID, sequence(taggedBytes(0, keyId)));
}

/** The URI in a CA certificate made by `signCa` that names its trust domain. */
export function trustDomainUri(trustDomain: string): string {
  return `spiffe://${trustDomain}`;
}

function signCertificate(
  issuer: Issuer,
  publicKey: KeyObject,
  subject: Asn1,
  serial: string,
  validity: Validity,
  extensions: readonly Asn1[]
): string {
  const tbs = sequence(
    tagged(0, integer(V3)),
    integer(BigInt(`0x${serial}`)),
    signatureAlgorithmOf(issuer.privateKey),
    issuer.name,
    sequence(time(validity.notBeforeMs), time(validity.notAfterMs)),
    subject,
    decode(spkiOf(publicKey)),
    tagged(3, sequence(...extensions))
  );
  return encodePem('CERTIFICATE', signed(tbs, issuer.privateKey));
}

function wholeSeconds(ms: number): number {
  return Math.floor(ms / SECOND_MS) * SECOND_MS;
}

function uriName(uri: string): Asn1 {
  return sequence(taggedBytes(6, Buffer.from(uri)));
}

const V3 = 2n;
const SECOND_MS = 1000;
export const HOUR_MS: number = 3600 * SECOND_MS;
export const DAY_MS: number = 24 * HOUR_MS;
const MAX_LIFETIME_MS: number = 36_525 * DAY_MS;
const MAX_BACKDATE_MS: number = 300 * SECOND_MS;
export const SUBJECT_KEY_ID = '2.5.29.14';
export const KEY_USAGE = '2.5.29.15';
const SUBJECT_ALT_NAME = '2.5.29.17';
export const BASIC_CONSTRAINTS = '2.5.29.19';
const AUTHORITY_KEY_ID = '2.5.29.35';
const EXTENDED_KEY_USAGE = '2.5.29.37';
const SERVER_AUTH = '1.3.6.1.5.5.7.3.1';
const CLIENT_AUTH = '1.3.6.1.5.5.7.3.2';
/** KeyUsage bits, most significant first: digitalSignature; keyCertSign and cRLSign. */
const SIGNATURES: Uint8Array = Uint8Array.of(0x80);
const CERTIFICATES_AND_CRLS: Uint8Array = Uint8Array.of(0x06);
