/**
 * Whether the clock of this machine can be trusted, as certificates need it: what the system says of its synchronisation,
 * and whether the certificates of the state directory hold now.
 * @module
 */
import { execFile } from 'node:child_process';
import { X509Certificate } from 'node:crypto';
import { existsSync, readFileSync } from 'node:fs';
import { promisify } from 'node:util';
import { type Finding, fail, ok, warn } from './finding.ts';

/** The certificate of a file, and what replaces it. */
export interface CheckedCertificate {
  /** What it is, for sentences: `the certificate of the site`. */
  readonly what: string;
  readonly path: string;
  /** What to do when it has expired. */
  readonly remedy: string;
}

export async function clockFindings(
  certificates: readonly CheckedCertificate[],
  nowMs: number = Date.now()
): Promise<Finding[]> {
  return [
    await synchronised(),
    ...certificates.flatMap((each) => certificateFindings(each, nowMs)),
  ];
}

/** Asks systemd, which knows it of every program that disciplines the kernel's clock. */
async function synchronised(): Promise<Finding> {
  const args = ['show', '--property=NTPSynchronized', '--value'];
  try {
    const { stdout } = await promisify(execFile)('timedatectl', args, { timeout: TIMEOUT_MS });
    if (stdout.trim() === 'yes') return ok('clock', 'the clock of this machine is synchronised');
  } catch {
    return ok('clock', 'it cannot be known here whether the clock is synchronised');
  }
  return warn(
    'clock',
    'the clock of this machine is not synchronised: certificates are refused when it is wrong',
    'start systemd-timesyncd or chrony'
  );
}

function certificateFindings({ what, path, remedy }: CheckedCertificate, nowMs: number): Finding[] {
  if (!existsSync(path)) return [];
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(readFileSync(path));
  } catch (error) {
    const { message } = error as Error;
    return [fail('certificate', `${what} in ${path} cannot be read: ${message}`, remedy)];
  }
  const [from, to] = [Date.parse(certificate.validFrom), Date.parse(certificate.validTo)];
  const until = new Date(to).toISOString();
  if (nowMs < from) {
    return [
      fail(
        'certificate',
        `${what} holds from ${new Date(from).toISOString()} on, and the clock of this machine says ${new Date(nowMs).toISOString()}`,
        'set the clock of this machine, or that of the machine that made the certificate'
      ),
    ];
  }
  if (nowMs >= to) return [fail('certificate', `${what} has expired on ${until}`, remedy)];
  return [ok('certificate', `${what} holds until ${until}`)];
}

const TIMEOUT_MS = 5_000;
