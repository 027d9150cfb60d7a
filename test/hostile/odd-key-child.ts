/**
 * `odd-key-child.ts request PEM` or `odd-key-child.ts enrol TOKEN`: does what a gateway does with it, and
 * prints the code of the error. It is a process of its own, because some keys have made Node abort.
 */
import { enrol } from '../../src/pki/index.ts';
import { verifySigningRequest } from '../../src/pki/signing-request.ts';

const [what, text] = process.argv.slice(2);
try {
  if (what === 'request') verifySigningRequest(text!);
  else await enrol(text!);
  process.stdout.write('accepted\n');
} catch (error) {
  process.stdout.write(`${(error as { code?: string }).code}\n`);
}
