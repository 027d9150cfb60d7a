/**
 * Signing requests, tokens and enrolment requests, valid and with faults.
 * @module
 */
import { execFileSync } from 'node:child_process';
import { createSigningRequest, generateGatewayKey } from '../../src/pki/index.ts';
import type { Random } from '../support/random.ts';
import { mutate } from './fuzz-cases.ts';
import { anyJson, spoil, spoilText } from './fuzz-json.ts';

/** DER of valid requests with every type of key, and with some types that are refused. */
export function seedRequests(): Buffer[] {
  const own = (['p256', 'ed25519', 'rsa'] as const).map((type) =>
    createSigningRequest(generateGatewayKey(type).privateKeyPem)
  );
  const foreign = FOREIGN_KEYS.map((options) =>
    execFileSync('openssl', [...NEW_REQUEST, ...options], {
      stdio: ['ignore', 'pipe', 'ignore'],
      encoding: 'utf8',
    })
  );
  return [...own, ...foreign].map((pem) => Buffer.from(pem.split(/-----[^-]+-----/)[1]!, 'base64'));
}

/** Returns a request with faults: in its bytes, in the structure of its DER, or in its PEM. */
export function spoiltRequest(random: Random, seeds: readonly Buffer[]): string {
  const der = random.pick(seeds);
  switch (random.below(5)) {
    case 0:
      return mutate(random, Buffer.from(pemOf(der))).toString('latin1');
    case 1:
      return pemOf(mutate(random, der));
    case 2:
      return pemOf(Buffer.from(random.bytes(random.below(300))));
    default:
      return pemOf(restructured(random, der, random.pick(seeds)));
  }
}

/** Returns the text of a token with faults: in the text, or in its content. */
export function spoiltToken(random: Random, token: string): string {
  const said = JSON.parse(Buffer.from(token.slice('vp1.'.length), 'base64url').toString());
  switch (random.below(5)) {
    case 0:
      return mutate(random, Buffer.from(token)).toString();
    case 1:
      return `vp1.${mutate(random, Buffer.from(JSON.stringify(said))).toString('base64url')}`;
    case 2:
      return `vp1.${Buffer.from(JSON.stringify(anyJson(random))).toString('base64url')}`;
    case 3:
      return random.pick(['', 'vp1.', 'vp1.'.repeat(2_000), `vp1.${'A'.repeat(4_000)}`, '\0']);
    default:
      return `vp1.${Buffer.from(JSON.stringify(spoil(random, said))).toString('base64url')}`;
  }
}

export interface EnrolmentBody {
  readonly tokenId: string;
  readonly secret: string;
  readonly csrPem: string;
}

/** Returns the body of an enrolment request with faults. */
export function spoiltBody(random: Random, body: EnrolmentBody, seeds: readonly Buffer[]): string {
  const json = { ...body };
  switch (random.below(4)) {
    case 0:
      return mutate(random, Buffer.from(JSON.stringify(json))).toString();
    case 1:
      return JSON.stringify({ ...json, csrPem: spoiltRequest(random, seeds) });
    case 2:
      return JSON.stringify(spoilText(random, json) ?? anyJson(random));
    default:
      return JSON.stringify(spoil(random, json));
  }
}

/** Returns DER with another tag, length or content of one element; the lengths around it are corrected or not. */
function restructured(random: Random, der: Buffer, other: Buffer): Buffer {
  const elements = elementsOf(der);
  const { start, content, end } = random.pick(elements);
  const inside = der.subarray(content, end);
  const tag = der[start]!;
  const put = random.pick([
    () => element(random.pick([...TAGS, tag ^ 0x20]), inside),
    () => element(tag, Buffer.from(random.bytes(random.pick([0, 1, 9, 33, 127, 128, 300])))),
    () => element(tag, mutate(random, inside)),
    () => element(tag, Buffer.concat([inside, inside])),
    () => Buffer.alloc(0),
    () => Buffer.from([tag, ...random.pick(ODD_LENGTHS), ...inside]),
    () => {
      const there = random.pick(elementsOf(other));
      return other.subarray(there.start, there.end);
    },
  ])();
  const replaced = Buffer.concat([der.subarray(0, start), put, der.subarray(end)]);
  if (random.chance(0.3)) return replaced;
  return withLengths(replaced, elements, start, put.length - (end - start));
}

interface Element {
  readonly start: number;
  readonly content: number;
  readonly end: number;
}

function elementsOf(der: Buffer, from = 0, to = der.length, found: Element[] = []): Element[] {
  for (let at = from; at + 2 <= to; ) {
    const first = der[at + 1]!;
    const more = first < 0x80 ? 0 : first & 0x7f;
    const length = more === 0 ? first : der.readUIntBE(at + 2, more);
    const content = at + 2 + more;
    const end = content + length;
    found.push({ start: at, content, end });
    if ((der[at]! & 0x20) !== 0) elementsOf(der, content, end, found);
    at = end;
  }
  return found;
}

/** Corrects the lengths of the elements around the changed place, outermost last. */
function withLengths(der: Buffer, before: readonly Element[], at: number, by: number): Buffer {
  let bytes = der;
  let grown = by;
  const around = before.filter(({ start, end }) => start < at && at < end).reverse();
  for (const { start, content, end } of around) {
    const inside = bytes.subarray(content, end + grown);
    const mended = element(bytes[start]!, inside);
    const rest = bytes.subarray(end + grown);
    grown += mended.length - (content - start) - inside.length;
    bytes = Buffer.concat([bytes.subarray(0, start), mended, rest]);
  }
  return bytes;
}

function element(tag: number, content: Uint8Array): Buffer {
  const { length } = content;
  const header =
    length < 0x80
      ? [tag, length]
      : length < 0x100
        ? [tag, 0x81, length]
        : [tag, 0x82, length >> 8, length & 255];
  return Buffer.concat([Buffer.from(header), content]);
}

/** Returns DER with `part`, one of its elements, replaced, and all lengths corrected. */
export function replaced(der: Buffer, part: Buffer, by: Buffer): Buffer {
  const start = der.indexOf(part);
  const end = start + part.length;
  const bytes = Buffer.concat([der.subarray(0, start), by, der.subarray(end)]);
  return withLengths(bytes, elementsOf(der), start, by.length - part.length);
}

/** Returns DER as PEM, by default as a signing request. */
export function pemOf(der: Uint8Array, label = 'CERTIFICATE REQUEST'): string {
  const lines =
    Buffer.from(der)
      .toString('base64')
      .match(/.{1,64}/g) ?? [];
  const [begin, end] = ['BEGIN', 'END'].map((word) => `-----${word} ${label}-----\n`);
  return `${begin}${lines.map((line) => `${line}\n`).join('')}${end}`;
}

const NEW_REQUEST = [
  ...['req', '-new', '-nodes', '-keyout', '/dev/null', '-subj', '/CN=admin/O=somebody'],
  ...['-addext', 'subjectAltName=URI:spiffe://example.org/cloud'],
];
const FOREIGN_KEYS: readonly (readonly string[])[] = [
  ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
  [
    ...['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256'],
    ...['-pkeyopt', 'ec_param_enc:explicit'],
  ],
  ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:secp384r1'],
  ['-newkey', 'rsa:2048'],
  ['-newkey', 'rsa:1024'],
  ['-newkey', 'ed448'],
];
const TAGS = [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x0c, 0x30, 0x31, 0xa0, 0x1f, 0xff];
/** Lengths that DER does not allow, or that are impossible. */
const ODD_LENGTHS: readonly (readonly number[])[] = [
  [0x80],
  [0x81, 0x05],
  [0x82, 0x00, 0x05],
  [0x84, 0xff, 0xff, 0xff, 0xff],
  [0x88, 0, 0, 0, 0, 0, 0, 0, 1],
  [0xff],
];
