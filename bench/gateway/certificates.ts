/**
 * A root and a P-256 certificate for each gateway, made by openssl, for rivals that want files.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { mkdtempSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface CertificateFiles {
  readonly ca: string;
  readonly certificate: string;
  readonly key: string;
  /** Certificate and key in one. */
  readonly both: string;
  /** The DNS name that the certificate is for. */
  readonly name: string;
}

export interface Certificates {
  readonly edge: CertificateFiles;
  readonly cloud: CertificateFiles;
}

export function makeCertificates(directory: string): Certificates {
  const home = mkdtempSync(join(directory, 'certificates-'));
  const at = (name: string) => join(home, name);
  const openssl = (...args: string[]) => execFileSync('openssl', args, { stdio: 'pipe' });
  const newKey = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
  openssl(
    ...['req', '-x509', ...newKey, '-days', '2', '-subj', '/CN=bench root'],
    ...['-keyout', at('ca.key'), '-out', at('ca.pem')]
  );
  const issue = (role: 'edge' | 'cloud'): CertificateFiles => {
    const name = `${role}.example.test`;
    const [key, request, certificate] = [at(`${role}.key`), at(`${role}.csr`), at(`${role}.pem`)];
    const both = at(`${role}.both.pem`);
    const extensions = at(`${role}.ext`);
    writeFileSync(
      extensions,
      `subjectAltName=DNS:${name}\nextendedKeyUsage=serverAuth,clientAuth\n` +
        'basicConstraints=critical,CA:false\nkeyUsage=critical,digitalSignature\n'
    );
    openssl('req', '-new', ...newKey, '-subj', `/CN=${name}`, '-keyout', key, '-out', request);
    openssl(
      ...['x509', '-req', '-days', '2', '-in', request, '-CA', at('ca.pem')],
      ...['-CAkey', at('ca.key'), '-CAcreateserial', '-extfile', extensions, '-out', certificate]
    );
    writeFileSync(both, execFileSync('cat', [certificate, key]), { mode: 0o600 });
    return { ca: at('ca.pem'), certificate, key, both, name };
  };
  return { edge: issue('edge'), cloud: issue('cloud') };
}
