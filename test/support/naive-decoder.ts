/**
 * Decodes a whole stream the plain way, from the text of docs/wire-format.md: the oracle for
 * `FrameDecoder`.
 * @module
 */
import { FrameFault } from '../../src/tunnel/frame.ts';

export interface Decoded {
  readonly frames: readonly (readonly [type: number, payload: string])[];
  readonly fault: FrameFault;
}

export function decodeNaively(stream: Buffer, maxControlBytes: number): Decoded {
  const lengths = new Map<number, [min: number, max: number]>([
    [0x01, [11, 10 + 65_535]],
    [0x02, [1, maxControlBytes]],
    [0x05, [8, 8]],
    [0x06, [8, 8]],
    [0x07, [2, 4096]],
    [0x08, [0, 0]],
  ]);
  const frames: [number, string][] = [];
  let rest = stream;
  while (rest.length >= 4) {
    const type = rest.readUInt8(0);
    const length = rest.readUIntBE(1, 3);
    const allowed = type >= 0x80 ? [0, maxControlBytes] : lengths.get(type);
    if (allowed === undefined) return { frames, fault: FrameFault.BadType };
    if (length < allowed[0]! || length > allowed[1]!)
      return { frames, fault: FrameFault.BadLength };
    if (rest.length < 4 + length) break;
    if (type < 0x80) frames.push([type, rest.toString('hex', 4, 4 + length)]);
    rest = rest.subarray(4 + length);
  }
  return { frames, fault: FrameFault.None };
}
