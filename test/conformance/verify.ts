/**
 * A second look at the corpus, which shares no code with what built it: offsets instead of fields.
 * Of every packet the lengths and the IPv4 header checksum must be right, and what a receiver sums
 * up to must be the same before and after: 0xffff, or as wrong as it came.
 * @module
 */
import type { Case, Step } from './corpus.ts';

/** What is wrong with a case, one sentence each. */
export function faultsOf({ name, cites, steps }: Case): string[] {
  const faults: string[] = [];
  if (cites.length === 0) faults.push('cites nothing');
  for (const cite of cites) {
    if (!/^(RFC \d{3,4}( (section|appendix) \S+)?|virtio 1\.2 [\d.]+)/.test(cite)) {
      faults.push(`"${cite}" is no citation`);
    }
  }
  let at = 0;
  for (const [i, step] of steps.entries()) {
    if (step.at !== undefined && step.at < at) faults.push(`step ${i}: time goes back`);
    at = step.at ?? at;
    for (const fault of faultsOfStep(step)) faults.push(`step ${i}: ${fault}`);
  }
  return faults.map((fault) => `${name}: ${fault}`);
}

function faultsOfStep({ packet, vnet, expect }: Step): string[] {
  const faults: string[] = [];
  const isForward = expect.verdict === 'Forward';
  if (isForward !== (expect.packet !== undefined)) faults.push('no packet, or one too many');
  if (isForward && expect.egress === undefined) faults.push('no egress');
  if (isForward && (vnet === undefined) !== (expect.vnet === undefined)) faults.push('no vnet');
  for (const header of [vnet, expect.vnet]) {
    if (header !== undefined && header.length !== 20) faults.push('a vnet of another length');
  }
  if (expect.reply !== undefined) {
    faults.push(...faultsOfOwn(bytesOf(expect.reply)).map((fault) => `reply: ${fault}`));
  }
  if (isForward) {
    faults.push(...faultsOfPair(bytesOf(packet), bytesOf(expect.packet!), vnet, expect.vnet));
  }
  return faults;
}

function faultsOfOwn(reply: Uint8Array): string[] {
  const faults = faultsOfHeader(reply);
  if (residue(reply) !== 0xffff) faults.push('a wrong checksum');
  const isSix = reply[0]! >> 4 === 6;
  if (reply.length > (isSix ? 1280 : 576)) faults.push('too long');
  return faults;
}

function faultsOfPair(
  before: Uint8Array,
  after: Uint8Array,
  vnet: string | undefined,
  vnetAfter: string | undefined
): string[] {
  const faults = [
    ...faultsOfHeader(before).map((fault) => `packet: ${fault}`),
    ...faultsOfHeader(after).map((fault) => `expected packet: ${fault}`),
  ];
  const [one, other] = [vnet, vnetAfter].map((header) => header !== undefined && header[1] === '1');
  if (other) {
    if (!isPartial(after)) faults.push('expected packet: no sum of the pseudo-header');
    if (!isPartial(before)) faults.push('packet: no sum of the pseudo-header');
    return faults;
  }
  const sums = [before, after].map((data) => residue(data));
  if (one && sums[1] !== 0xffff) faults.push('a wrong complete checksum');
  if (!one && sums[0] !== sums[1]) faults.push(`a receiver sums up to ${sums.join(', then ')}`);
  const quotes = [before, after].map(quoteOf);
  if (quotes[0] !== undefined && quotes[1] !== undefined) {
    const inner = quotes.map((data) => residueOfQuote(data!));
    if (inner[0] !== undefined && inner[1] !== undefined && inner[0] !== inner[1]) {
      faults.push(`in the quote a receiver sums up to ${inner.join(', then ')}`);
    }
  }
  return faults;
}

function faultsOfHeader(data: Uint8Array): string[] {
  if (data[0]! >> 4 === 6) return word(data, 4) + 40 === data.length ? [] : ['a wrong length'];
  const faults = word(data, 2) === data.length ? [] : ['a wrong length'];
  if (sum(data, 0, (data[0]! & 15) * 4, 0) !== 0xffff) faults.push('a wrong header checksum');
  return faults;
}

interface Transport {
  readonly protocol: number;
  readonly start: number;
  /** A fragment, so that its checksum cannot be seen to be right. */
  readonly isFragment: boolean;
  /** Sum of the addresses, as in the pseudo-header. */
  readonly addresses: number;
}

function transportOf(data: Uint8Array): Transport {
  if (data[0]! >> 4 === 4) {
    const isFragment = (word(data, 6) & 0x3fff) !== 0;
    const addresses = sum(data, 12, 20, 0);
    return { protocol: data[9]!, start: (data[0]! & 15) * 4, isFragment, addresses };
  }
  let protocol = data[6]!;
  let start = 40;
  let isFragment = false;
  while ([0, 43, 44, 51, 60].includes(protocol) && start + 8 <= data.length) {
    if (protocol === 44 && (word(data, start + 2) & 0xfff9) !== 0) isFragment = true;
    const next = data[start]!;
    const units = data[start + 1]!;
    start += protocol === 44 ? 8 : protocol === 51 ? 4 * (units + 2) : 8 * (units + 1);
    protocol = next;
  }
  return { protocol, start, isFragment, addresses: sum(data, 8, 40, 0) };
}

/** What a receiver sums up to; 0xffff where there is nothing to sum up. */
function residue(data: Uint8Array): number {
  const { protocol, start, isFragment, addresses } = transportOf(data);
  if (isFragment) return 0xffff;
  const length = data.length - start;
  const pseudo = addresses + protocol + length;
  switch (protocol) {
    case 1:
      return sum(data, start, data.length, 0);
    case 6:
    case 58:
      return sum(data, start, data.length, pseudo);
    case 17:
      return word(data, start + 6) === 0 ? 0xffff : sum(data, start, data.length, pseudo);
    case 136: {
      const coverage = word(data, start + 4);
      return sum(data, start, coverage === 0 ? data.length : start + coverage, pseudo);
    }
    default:
      return 0xffff;
  }
}

/** Whether the checksum field holds the sum of the pseudo-header. */
function isPartial(data: Uint8Array): boolean {
  const { protocol, start, addresses } = transportOf(data);
  const at = start + (protocol === 6 ? 16 : protocol === 17 ? 6 : 2);
  return word(data, at) === fold(addresses + protocol + data.length - start);
}

function quoteOf(data: Uint8Array): Uint8Array | undefined {
  const { protocol, start } = transportOf(data);
  const type = data[start];
  if (protocol === 1 && [3, 11, 12].includes(type!)) return data.subarray(start + 8);
  if (protocol === 58 && type! < 128) return data.subarray(start + 8);
  return undefined;
}

/** Undefined unless the quote is of a whole packet and nothing more. */
function residueOfQuote(quote: Uint8Array): number | undefined {
  const length = quote[0]! >> 4 === 6 ? word(quote, 4) + 40 : word(quote, 2);
  if (length !== quote.length) return undefined;
  const { protocol, start } = transportOf(quote);
  if (protocol === 17 && word(quote, start + 6) === 0) return 0;
  return residue(quote);
}

function bytesOf(hex: string): Uint8Array {
  return Buffer.from(hex, 'hex');
}

function word(data: Uint8Array, at: number): number {
  return (data[at]! << 8) + data[at + 1]!;
}

function sum(data: Uint8Array, from: number, to: number, start: number): number {
  let total = start;
  for (let i = from; i < to; i++) total += (i - from) % 2 === 0 ? data[i]! * 256 : data[i]!;
  return fold(total);
}

function fold(total: number): number {
  return total === 0 ? 0 : ((total - 1) % 0xffff) + 1;
}
