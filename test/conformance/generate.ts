/**
 * Writes the corpus: `node --import tsx test/conformance/generate.ts`.
 * @module
 */
import { writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { type Subject, textOf } from './corpus.ts';
import { checksums } from './subjects/checksums.ts';
import { fragments } from './subjects/fragments.ts';
import { icmpEcho } from './subjects/icmp-echo.ts';
import { icmpErrors } from './subjects/icmp-errors.ts';
import { icmpIpv4Ipv6 } from './subjects/icmp-ipv4-ipv6.ts';
import { ipv4Options } from './subjects/ipv4-options.ts';
import { ipv4ToIpv6 } from './subjects/ipv4-to-ipv6.ts';
import { ipv6ExtensionHeaders } from './subjects/ipv6-extension-headers.ts';
import { ipv6ToIpv4 } from './subjects/ipv6-to-ipv4.ts';
import { malformed } from './subjects/malformed.ts';
import { mtuMss } from './subjects/mtu-mss.ts';
import { offload } from './subjects/offload.ts';
import { policySessions } from './subjects/policy-sessions.ts';
import { reject } from './subjects/reject.ts';
import { rfc4884 } from './subjects/rfc4884.ts';
import { tcpUdp } from './subjects/tcp-udp.ts';
import { udpliteSctpOther } from './subjects/udplite-sctp-other.ts';

export function subjects(): readonly Subject[] {
  return [
    checksums(),
    tcpUdp(),
    icmpEcho(),
    icmpErrors(),
    rfc4884(),
    ipv4Options(),
    ipv6ExtensionHeaders(),
    udpliteSctpOther(),
    fragments(),
    ipv4ToIpv6(),
    ipv6ToIpv4(),
    icmpIpv4Ipv6(),
    mtuMss(),
    policySessions(),
    reject(),
    offload(),
    malformed(),
  ];
}

/** Where a subject is kept. */
export function fileOf({ subject }: Pick<Subject, 'subject'>): URL {
  return new URL(`${subject}.json`, import.meta.url);
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  let cases = 0;
  for (const subject of subjects()) {
    writeFileSync(fileOf(subject), textOf(subject));
    console.log(`${subject.cases.length} cases of ${subject.subject}`);
    cases += subject.cases.length;
  }
  console.log(`${cases} cases`);
}
