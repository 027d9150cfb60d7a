/**
 * Reads files of scripts. The syntax is a subset of packetdrill's, with the differences that README.md lists.
 * @module
 */
import type { Family } from '../../../src/base/address.ts';
import {
  type Action,
  CALLS,
  type Call,
  type CallName,
  ICMP_KINDS,
  type IcmpKind,
  type IcmpText,
  type NumberText,
  type OptionText,
  type Script,
  type ScriptEvent,
  type SegmentText,
  type SubjectKind,
  type WindowText,
} from './script.ts';

/**
 * Returns the scripts of a file, in their order.
 *
 * @param file its name, for messages
 * @throws {SyntaxError} at the first line that is no event, title or comment
 */
export function parseScripts(file: string, text: string): Script[] {
  const scripts: Script[] = [];
  const preludes = new Map<string, readonly ScriptEvent[]>();
  /** The events of the script, or the prelude, that was begun last. */
  let events: ScriptEvent[] | undefined;
  const parseLine = (line: string, number: number): void => {
    const [, word, rest] = /^(==|prelude|use)\s+(.*)$/.exec(line) ?? [];
    if (word === '==') {
      events = [];
      scripts.push({ place: `${file}:${number}`, ...parseTitle(rest!), events });
    } else if (word === 'prelude') {
      events = [];
      preludes.set(rest!, events);
    } else if (events === undefined) {
      throw new SyntaxError('an event before the first title');
    } else if (word === 'use') {
      const prelude = preludes.get(rest!);
      if (prelude === undefined) throw new SyntaxError(`no prelude: ${rest}`);
      events.push(...prelude);
    } else {
      events.push(...parseEvents(line, number));
    }
  };
  for (const [index, raw] of text.split('\n').entries()) {
    const line = raw.replace(/(?:^|\s)\/\/.*$/, '').trim();
    try {
      if (line !== '') parseLine(line, index + 1);
    } catch (cause) {
      throw new SyntaxError(`${file}:${index + 1}: ${(cause as Error).message}`, { cause });
    }
  }
  return scripts;
}

/** Returns the event of a line; several, where it has several segments as `1:2921(2*1460)`. */
function parseEvents(line: string, number: number): ScriptEvent[] {
  const several = / (-?\d+):(-?\d+)\((\d+)\*(\d+)\)/.exec(line);
  if (several === null) return [parseEvent(number, line)];
  const [range, start, end, count, length] = several;
  if (Number(end) - Number(start) !== Number(count) * Number(length)) {
    throw new SyntaxError(`${start}:${end} is not ${count} times ${length}`);
  }
  return Array.from({ length: Number(count) }, (_, i) => {
    const from = Number(start) + i * Number(length);
    const one = line.replace(range, ` ${from}:${from + Number(length)}(${length})`);
    const event = parseEvent(number, i === 0 ? one : one.replace(/\+[\d.]+(?:~[\d.]+)?/, '+0'));
    const { action } = event;
    return action.type === 'inject' ? { ...event, action: { ...action, isNext: i > 0 } } : event;
  });
}

/** A title may end with what the script is for: `(linux only)`, `(IPv4 only)`. */
function parseTitle(text: string): Pick<Script, 'title' | 'families' | 'subjects'> {
  const [, title, only] = /^(.*?)(?:\s*\((linux|stack|IPv4|IPv6) only\))?$/.exec(text)!;
  return {
    title: title!,
    families: only === 'IPv4' ? [4] : only === 'IPv6' ? [6] : [4, 6],
    subjects: only === 'linux' ? ['linux'] : only === 'stack' ? ['stack'] : ['linux', 'stack'],
  };
}

function parseEvent(number: number, text: string): ScriptEvent {
  const [, prefixes, from, until, rest] = match(
    /^((?:(?:linux|stack|v4|v6):\s*)*)\+([\d.]+)(?:~([\d.]+))?\s+(.*)$/,
    text,
    'an event is "+<seconds> <what happens>"'
  );
  const words: readonly string[] = prefixes!.split(/:\s*/);
  const afterMs = seconds(from!);
  return {
    line: number,
    text,
    subject: (['linux', 'stack'] as const).find((kind): kind is SubjectKind =>
      words.includes(kind)
    ),
    family: ([4, 6] as const).find((family): family is Family => words.includes(`v${family}`)),
    afterMs,
    untilMs: until === undefined ? afterMs : seconds(until),
    action: parseAction(rest!),
  };
}

function parseAction(text: string): Action {
  if (text === '> nothing') return { type: 'nothing' };
  if (text.startsWith('< icmp ')) return { type: 'icmp', error: parseIcmp(text.slice(7)) };
  if (text.startsWith('< ')) {
    return { type: 'inject', segment: parseSegment(text.slice(2)), isNext: false };
  }
  const [, arrows, segment] = /^(>>?) (.*)$/.exec(text) ?? [];
  if (segment !== undefined) {
    return { type: 'expect', segment: parseSegment(segment), isLast: arrows === '>>' };
  }
  return { type: 'call', call: parseCall(text) };
}

function parseSegment(text: string): SegmentText {
  const [, flags, start, end, length, ack, window, urgent, options, fault] = match(
    /^([SFRPUEW.]+) (-?\d+):(-?\d+)\((\d+)\)(?: ack (-?\d+))?(?: win (\*|(?:[<>]=?)?\d+))?(?: urg (\d+))?(?: <(.*)>)?(?: with wrong (checksum|content))?$/,
    text,
    'a segment is "<flags> <start>:<end>(<length>) [ack n] [win n] [urg n] [<options>]"'
  );
  if (Number(end) - Number(start) !== Number(length)) {
    throw new SyntaxError(`${start}:${end} is not ${length} bytes long`);
  }
  if (flags!.includes('.') !== (ack !== undefined)) {
    throw new SyntaxError('"ack" and the flag "." go together');
  }
  return {
    flags: flags!,
    start: Number(start),
    length: Number(length),
    ack: ack === undefined ? undefined : Number(ack),
    window: parseWindow(window ?? '*'),
    urgent: Number(urgent ?? 0),
    options: options === '*' ? 'any' : parseOptions(options ?? ''),
    fault: fault as SegmentText['fault'],
  };
}

function parseWindow(text: string): WindowText {
  if (text === '*') return { comparison: '*', value: 0 };
  const [, comparison, value] = /^([<>]=?)?(\d+)$/.exec(text)!;
  return { comparison: (comparison ?? '=') as WindowText['comparison'], value: Number(value) };
}

function parseOptions(text: string): OptionText[] {
  return text === '' ? [] : text.split(',').map((option) => parseOption(option.trim()));
}

function parseOption(text: string): OptionText {
  const [kind, ...words] = text.split(/\s+/);
  switch (kind) {
    case 'nop':
    case 'eol':
    case 'sackOK':
      return { kind };
    case 'mss':
    case 'wscale':
      return { kind, value: parseNumber(words[0]) };
    case 'TS':
      if (words[0] !== 'val' || words[2] !== 'ecr') break;
      return { kind, value: parseNumber(words[1]), echo: parseNumber(words[3]) };
    case 'sack':
      return {
        kind,
        blocks: words.map((word) => {
          const [, left, right] = match(/^(-?\d+):(-?\d+)$/, word, 'a SACK block is "left:right"');
          return [Number(left), Number(right)] as const;
        }),
      };
    case 'raw':
      return { kind, bytes: Buffer.from(words.join(''), 'hex') };
  }
  throw new SyntaxError(`no option: ${text}`);
}

function parseNumber(text: string | undefined): NumberText {
  if (text === '*' || text?.startsWith('$')) return text as NumberText;
  if (text === undefined || !/^\d+$/.test(text)) throw new SyntaxError(`no number: ${text}`);
  return Number(text);
}

function parseIcmp(text: string): IcmpText {
  const [, kind, mtu, quoted] = match(
    /^(\w+)(?: mtu (\d+))? \[(-?\d+)\]$/,
    text,
    'an ICMP error is "icmp <kind> [mtu n] [<quoted sequence number>]"'
  );
  if (!ICMP_KINDS.includes(kind as IcmpKind)) throw new SyntaxError(`no ICMP error: ${kind}`);
  return { kind: kind as IcmpKind, mtu: Number(mtu ?? 0), quoted: Number(quoted) };
}

function parseCall(text: string): Call {
  const [, name, argument, result] = match(
    /^(\w+)\((\d*)\)(?: = (\d+|-E[A-Z]+))?$/,
    text,
    'a call is "name(argument) [= result]"'
  );
  if (!Object.hasOwn(CALLS, name!)) throw new SyntaxError(`no call: ${name}`);
  const takes = CALLS[name as CallName];
  if (takes === 'needed' && argument === '') throw new SyntaxError(`${name} needs an argument`);
  if (takes === 'none' && argument !== '') throw new SyntaxError(`${name} takes no argument`);
  return {
    name: name as CallName,
    argument: Number(argument),
    result:
      result === undefined ? undefined : result.startsWith('-') ? result.slice(1) : Number(result),
  };
}

function seconds(text: string): number {
  const value = Number(text);
  if (!Number.isFinite(value)) throw new SyntaxError(`no time: ${text}`);
  return Math.round(value * 1e6) / 1e3;
}

/** @throws {SyntaxError} `otherwise`, if the text does not match */
function match(pattern: RegExp, text: string, otherwise: string): readonly (string | undefined)[] {
  const found = pattern.exec(text);
  if (found === null) throw new SyntaxError(`${otherwise}, not "${text}"`);
  return found;
}
