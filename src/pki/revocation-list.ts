/**
 * Certificate revocation lists, version 2, in the profile of
 * [RFC 5280 section 5](https://www.rfc-editor.org/rfc/rfc5280#section-5).
 * @module
 */
import { authorityKeyId, type Issuer } from './certificate.ts';
import { encodePem, enumerated, extension, integer, sequence, tagged, time } from './der.ts';
import { signatureAlgorithmOf, signed } from './keys.ts';
import { REASON_CODES, type RevocationRecord } from './revocations.ts';

export interface RevocationListTimes {
  /** Grows with every list; RFC 5280 section 5.2.3. */
  readonly number: bigint;
  readonly thisUpdateMs: number;
  readonly nextUpdateMs: number;
}

/** Signs the list of `records`. @returns PEM. */
export function signRevocationList(
  issuer: Issuer,
  records: readonly RevocationRecord[],
  times: RevocationListTimes
): string {
  const entries = records.map((record) => {
    const code = REASON_CODES[record.reason];
    const entry = [integer(BigInt(`0x${record.serial}`)), time(record.revokedAtMs)];
    // Section 5.3.1: "unspecified" is said by leaving the extension out.
    if (code !== 0) entry.push(sequence(extension(REASON_CODE, enumerated(code))));
    return sequence(...entry);
  });
  const tbs = sequence(
    integer(V2),
    signatureAlgorithmOf(issuer.privateKey),
    issuer.name,
    time(times.thisUpdateMs),
    time(times.nextUpdateMs),
    // Section 5.1.2.6: a list without entries has no field for them.
    ...(entries.length > 0 ? [sequence(...entries)] : []),
    tagged(0, sequence(authorityKeyId(issuer.keyId), extension(CRL_NUMBER, integer(times.number))))
  );
  return encodePem('X509 CRL', signed(tbs, issuer.privateKey));
}

const V2 = 1n;
const CRL_NUMBER = '2.5.29.20';
const REASON_CODE = '2.5.29.21';
