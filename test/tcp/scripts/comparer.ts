/**
 * Compares a segment that was sent with the one that the script expects, and writes segments as scripts do.
 *
 * What an endpoint may choose is not compared: the order of options, NOPs, and PSH where the script does not
 * write it.
 * @module
 */
import type { Numbering } from './numbering.ts';
import type { OptionText, SegmentText, WindowText } from './script.ts';
import { contentAt, type Option, type Segment } from './wire.ts';

/** Returns the first difference as a sentence, or undefined if there is none. Gives names their values. */
export function differenceOf(
  expected: SegmentText,
  actual: Segment,
  numbering: Numbering
): string | undefined {
  if (actual.fault !== undefined) return `it has ${actual.fault}`;
  const wanted = [...expected.flags].filter((flag) => flag !== 'P');
  const found = [...actual.flags].filter((flag) => flag !== 'P');
  if (wanted.sort().join('') !== found.sort().join('')) return 'the flags differ';
  if (expected.flags.includes('P') && !actual.flags.includes('P')) return 'PSH is missing';
  const start = numbering.local(actual.sequence);
  if (start !== expected.start) return `it begins at ${start} instead of ${expected.start}`;
  if (actual.payload.length !== expected.length) return 'the length differs';
  const wrong = actual.payload.findIndex((byte, i) => byte !== contentAt(start + i));
  if (wrong >= 0) return `the byte ${start + wrong} is not the one that was written`;
  if (expected.ack !== undefined && numbering.remote(actual.ack) !== expected.ack) {
    return 'the acknowledgment differs';
  }
  if (!isWithin(expected.window, numbering.windowOf(actual))) return 'the window differs';
  if (expected.urgent !== actual.urgent) return 'the urgent pointer differs';
  return expected.options === 'any'
    ? undefined
    : optionDifference(expected.options, actual.options, numbering);
}

/** Returns the segment as a script would write it. The window is in bytes. */
export function describeSegment(segment: Segment, numbering: Numbering): string {
  const start = numbering.local(segment.sequence);
  const { length } = segment.payload;
  const options = segment.options.map((option) => describeOption(option, numbering));
  return [
    segment.flags,
    `${start}:${start + length}(${length})`,
    ...(segment.flags.includes('.') ? [`ack ${numbering.remote(segment.ack)}`] : []),
    `win ${numbering.windowOf(segment)}`,
    ...(segment.urgent > 0 ? [`urg ${segment.urgent}`] : []),
    ...(options.length > 0 ? [`<${options.join(',')}>`] : []),
  ].join(' ');
}

function isWithin({ comparison, value }: WindowText, actual: number): boolean {
  switch (comparison) {
    case '*':
      return true;
    case '=':
      return actual === value;
    case '>=':
      return actual >= value;
    case '<=':
      return actual <= value;
    case '>':
      return actual > value;
    case '<':
      return actual < value;
  }
}

function optionDifference(
  expected: readonly OptionText[],
  actual: readonly Option[],
  numbering: Numbering
): string | undefined {
  const wanted = expected.filter(({ kind }) => kind !== 'nop' && kind !== 'eol');
  for (const option of wanted) {
    const same = actual.filter(({ kind }) => kind === option.kind);
    if (same.length !== 1) return `the option ${option.kind} is there ${same.length} times`;
    if (!isSameOption(option, same[0]!, numbering)) return `the option ${option.kind} differs`;
  }
  const other = actual.find((option) => !wanted.some(({ kind }) => kind === option.kind));
  return other === undefined ? undefined : `there is an option ${other.kind}`;
}

function isSameOption(expected: OptionText, actual: Option, numbering: Numbering): boolean {
  if (expected.kind === 'TS' && actual.kind === 'TS') {
    const { value, echo } = actual;
    return numbering.isEqual(expected.value, value) && numbering.isEqual(expected.echo, echo);
  }
  if (expected.kind === 'sack' && actual.kind === 'sack') {
    const blocks = actual.blocks.map((block) => block.map((edge) => numbering.remote(edge)));
    return JSON.stringify(blocks) === JSON.stringify(expected.blocks);
  }
  if ('value' in expected && 'value' in actual) {
    return numbering.isEqual(expected.value, actual.value);
  }
  return expected.kind === actual.kind;
}

function describeOption(option: Option, numbering: Numbering): string {
  switch (option.kind) {
    case 'mss':
    case 'wscale':
      return `${option.kind} ${option.value}`;
    case 'sackOK':
      return option.kind;
    case 'TS':
      return `TS val ${option.value} ecr ${option.echo}`;
    case 'sack': {
      const edges = option.blocks.map((block) => block.map((edge) => numbering.remote(edge)));
      return `sack ${edges.map(([left, right]) => `${left}:${right}`).join(' ')}`;
    }
    case 'unknown':
      return `kind ${option.type}`;
  }
}
