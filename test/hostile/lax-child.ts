/**
 * A gateway that is started with `NODE_TLS_REJECT_UNAUTHORIZED=0`: `lax-child.ts dial JSON` opens a tunnel with
 * these options, `lax-child.ts enrol TOKEN` redeems a token. Prints what it has seen, one JSON value a line.
 */

import { enrol } from '../../src/pki/index.ts';
import { formatIdentity } from '../../src/pki/names.ts';
import { type DialOptions, MtlsTunnel } from '../../src/tunnel/index.ts';

const [what, text] = process.argv.slice(2);
if (process.env.NODE_TLS_REJECT_UNAUTHORIZED !== '0') throw new Error('it verifies by default');
if (what === 'dial') dial(JSON.parse(text!));
else await redeem(text!);

/** Ends with the first control message, or when the first attempt has failed. */
function dial(options: DialOptions): void {
  const tunnel = MtlsTunnel.dial(options);
  tunnel.on('up', ({ certificate }) => {
    const peer = tunnel.peer === undefined ? 'nobody' : formatIdentity(tunnel.peer);
    say({ up: peer, certificate: certificate.subjectAltName });
  });
  tunnel.on('control', (message) => {
    say({ control: message });
    void tunnel.close();
  });
  tunnel.on('waiting', ({ cause: { reason } }) => {
    say({ failed: reason });
    void tunnel.close();
  });
}

async function redeem(token: string): Promise<void> {
  try {
    await enrol(token);
    say({ enrolled: true });
  } catch (error) {
    const { code, message } = error as Error & { code?: string };
    say({ code, message });
  }
}

function say(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
