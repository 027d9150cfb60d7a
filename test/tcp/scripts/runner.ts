/**
 * Runs a script on a subject, event by event, and says where the subject does something else.
 * @module
 */
import { bytes, u8, u16, u32 } from '../../support/bytes.ts';
import { icmpError, tcpPacket } from '../../support/packets.ts';
import { describeSegment, differenceOf } from './comparer.ts';
import { Numbering } from './numbering.ts';
import type {
  Call,
  IcmpKind,
  IcmpText,
  OptionText,
  Script,
  ScriptEvent,
  SegmentText,
} from './script.ts';
import { type Outcome, PENDING, type Sent, type StreamContent, type Subject } from './subject.ts';
import { contentAt, contentOf, decodeSegment, flagBits } from './wire.ts';

/** The subject did something else than the script says. */
export class ScriptFailure extends Error {
  /** By how many ms the machine was late while the script ran, at most. */
  readonly lagMs: number;

  constructor(message: string, lagMs: number) {
    super(message);
    this.lagMs = lagMs;
  }
}

/** @throws {ScriptFailure} at the first difference */
export async function runScript(script: Script, subject: Subject): Promise<void> {
  const run = new ScriptRun(script, subject);
  try {
    await run.run();
  } finally {
    subject.end();
  }
}

/** Whether the script has this event on this subject. */
export function isFor(
  event: ScriptEvent,
  { kind, place }: Pick<Subject, 'kind'> & { readonly place: Pick<Subject['place'], 'family'> }
): boolean {
  return (
    (event.subject === undefined || event.subject === kind) &&
    (event.family === undefined || event.family === place.family)
  );
}

class ScriptRun {
  readonly #script: Script;
  readonly #subject: Subject;
  readonly #numbering = new Numbering();
  readonly #content = new Content();
  readonly #startMs: number;
  /** The time of the event before. */
  #previousMs: number;
  /** What has happened, as a script would say it. */
  readonly #trace: string[] = [];
  #tracedMs: number;

  constructor(script: Script, subject: Subject) {
    this.#script = script;
    this.#subject = subject;
    this.#startMs = subject.now();
    this.#previousMs = this.#startMs;
    this.#tracedMs = this.#startMs;
  }

  async run(): Promise<void> {
    for (const event of this.#script.events) {
      if (!isFor(event, this.#subject)) continue;
      try {
        await this.#do(event);
      } catch (cause) {
        throw this.#failure(`line ${event.line}: ${event.text}\n${(cause as Error).message}`);
      }
    }
    const more = await this.#subject.next(this.#subject.now());
    if (more) throw this.#failure(`after the end it sends ${this.#describe(more)}`);
  }

  async #do(event: ScriptEvent): Promise<void> {
    const { action } = event;
    const fromMs = this.#previousMs + event.afterMs;
    const untilMs = this.#previousMs + event.untilMs;
    if (action.type === 'expect') {
      const { segment, isLast } = action;
      while (!(await this.#expect(segment, fromMs, untilMs, isLast)));
      return;
    }
    if (action.type === 'inject' && action.isNext) {
      this.#note(event, this.#previousMs);
      return this.#inject(action.segment);
    }
    const early = await this.#subject.next(fromMs);
    if (early) throw new Error(`before that it sends ${this.#describe(early)}`);
    await this.#subject.wait(fromMs);
    this.#previousMs = Math.max(fromMs, this.#subject.now());
    switch (action.type) {
      case 'inject':
        this.#note(event, this.#previousMs);
        return this.#inject(action.segment);
      case 'icmp':
        this.#note(event, this.#previousMs);
        return this.#subject.inject(this.#icmp(action.error));
      case 'call':
        this.#note(event, this.#previousMs);
        return this.#call(action.call);
    }
  }

  /** Returns false if the next segment is another one, and may be. */
  async #expect(
    expected: SegmentText,
    fromMs: number,
    untilMs: number,
    mayBeOther: boolean
  ): Promise<boolean> {
    const { patienceMs } = this.#subject;
    const beforeMs = this.#previousMs;
    const sent = await this.#subject.next(untilMs + Math.max(patienceMs, TICK_MS));
    if (sent === undefined) throw new Error('it sends nothing');
    const segment = decodeSegment(sent.packet);
    this.#numbering.noteSent(segment);
    this.#trace.push(this.#stamp(sent.atMs, `> ${describeSegment(segment, this.#numbering)}`));
    const difference = differenceOf(expected, segment, this.#numbering);
    if (difference !== undefined && mayBeOther) return false;
    if (difference !== undefined) {
      const found = describeSegment(segment, this.#numbering);
      throw new Error(`it sends ${found}: ${difference}`);
    }
    // Real timers are late, never early, except by the tick of the kernel; what is seen late makes the next
    // interval look shorter.
    const slackMs =
      patienceMs === 0
        ? TICK_MS
        : KERNEL_TICK_MS + (fromMs - beforeMs) * 0.05 + this.#subject.lagSince(beforeMs);
    if (sent.atMs < fromMs - slackMs) {
      throw new Error(`it is sent ${(fromMs - sent.atMs).toFixed(1)} ms too early`);
    }
    this.#previousMs = sent.atMs;
    return true;
  }

  #inject(text: SegmentText): void {
    const { place } = this.#subject;
    const options = text.options === 'any' ? [] : text.options;
    const scale = options.flatMap((option) => (option.kind === 'wscale' ? [option] : []))[0];
    if (text.fault !== 'checksum') {
      this.#numbering.noteInjected(text.flags, scale && this.#numbering.valueOf(scale.value));
      if (text.flags.includes('S')) this.#content.noteSyn(text.start);
    }
    const first = text.flags.includes('S') ? text.start + 1 : text.start;
    const payload = contentOf(first, text.length);
    const packet = tcpPacket(
      { source: place.remote, destination: place.local },
      {
        sourcePort: place.remotePort,
        destinationPort: place.localPort,
        sequence: this.#numbering.toRemote(text.start),
        acknowledgment: text.ack === undefined ? 0 : this.#numbering.toLocal(text.ack),
        flags: flagBits(text.flags),
        window: text.window.comparison === '*' ? 0xffff : text.window.value,
        urgent: text.urgent,
        tcpOptions: bytes(...options.map((option) => this.#optionBytes(option))),
        payload: text.fault === 'content' ? payload.map((byte) => byte ^ 0xff) : payload,
        ...(text.fault === 'checksum' && { checksum: { receiver: 0xfffe } }),
      }
    );
    this.#subject.inject(packet);
  }

  #optionBytes(option: OptionText): Uint8Array {
    const value = (text: Parameters<Numbering['valueOf']>[0]) => this.#numbering.valueOf(text);
    switch (option.kind) {
      case 'eol':
        return u8(0);
      case 'nop':
        return u8(1);
      case 'mss':
        return bytes(u8(2), u8(4), u16(value(option.value)));
      case 'wscale':
        return bytes(u8(3), u8(3), u8(value(option.value)));
      case 'sackOK':
        return bytes(u8(4), u8(2));
      case 'TS':
        return bytes(u8(8), u8(10), u32(value(option.value)), u32(value(option.echo)));
      case 'sack': {
        const edges = option.blocks.flat().map((edge) => u32(this.#numbering.toLocal(edge)));
        return bytes(u8(5), u8(2 + edges.length * 4), ...edges);
      }
      case 'raw':
        return option.bytes;
    }
  }

  /** An ICMP error of the far host, which quotes the headers of a segment that the subject has sent. */
  #icmp({ kind, mtu, quoted }: IcmpText): Uint8Array {
    const { place } = this.#subject;
    const segment = tcpPacket(
      { source: place.local, destination: place.remote },
      {
        sourcePort: place.localPort,
        destinationPort: place.remotePort,
        sequence: this.#numbering.toLocal(quoted),
        acknowledgment: this.#numbering.toRemote(1),
      }
    );
    const [type, code] = ICMP_CODES[kind][place.family === 4 ? 0 : 1];
    const rest = kind !== 'frag_needed' ? 0 : place.family === 4 ? mtu : mtu + IPV6_EXTRA;
    return icmpError(
      { source: place.remote, destination: place.local },
      { type, code, rest, quoted: segment }
    );
  }

  async #call(call: Call): Promise<void> {
    if (call.name === 'rebase') {
      this.#numbering.rebase();
      this.#content.rebase();
      return;
    }
    const giveUpMs = this.#subject.now() + this.#subject.patienceMs;
    let outcome = this.#outcomeOf(call);
    while (outcome === PENDING && call.result !== 'EAGAIN' && this.#subject.now() < giveUpMs) {
      await this.#subject.wait(this.#subject.now() + POLL_MS);
      outcome = this.#outcomeOf(call);
    }
    this.#previousMs = Math.max(this.#previousMs, this.#subject.now());
    const expected = call.result ?? defaultResult(call);
    const actual = outcome === PENDING ? 'EAGAIN' : outcome;
    if (actual !== expected) throw new Error(`it returns ${actual} instead of ${expected}`);
  }

  #outcomeOf(call: Call): Outcome {
    return this.#subject.call(call.name, call.argument, this.#content);
  }

  #note(event: ScriptEvent, atMs: number): void {
    this.#trace.push(this.#stamp(atMs, event.text.replace(/^.*?\+[\d.~]+\s+/, '')));
  }

  #stamp(atMs: number, text: string): string {
    const after = (atMs - this.#tracedMs) / 1000;
    this.#tracedMs = atMs;
    return `+${after.toFixed(3)} ${text}`;
  }

  #describe(sent: Sent): string {
    const segment = decodeSegment(sent.packet);
    this.#numbering.noteSent(segment);
    return `${describeSegment(segment, this.#numbering)} (${((sent.atMs - this.#previousMs) / 1000).toFixed(3)} s after the event before)`;
  }

  #failure(what: string): ScriptFailure {
    const { kind, place } = this.#subject;
    const where = `${this.#script.place} "${this.#script.title}" on ${kind}, IPv${place.family}`;
    const trace = this.#trace.map((line) => `    ${line}`).join('\n');
    const lagMs = this.#subject.lagSince(this.#startMs);
    return new ScriptFailure(`${where}, ${what}\n  so far:\n${trace}`, lagMs);
  }
}

/** The bytes of both streams: each is a function of its relative sequence number. */
class Content implements StreamContent {
  #writtenTo = 1;
  #readTo = 1;
  #isNew = false;

  toWrite(length: number): Uint8Array {
    return contentOf(this.#writtenTo, length);
  }

  wrote(length: number): void {
    this.#writtenTo += length;
  }

  read(got: Uint8Array): void {
    const wrong = got.findIndex((byte, i) => byte !== contentAt(this.#readTo + i));
    if (wrong >= 0) throw new Error(`the byte ${this.#readTo + wrong} is not the one injected`);
    this.#readTo += got.length;
  }

  rebase(): void {
    this.#isNew = true;
  }

  /** Notes where the SYN of the script is, if it begins a new connection. */
  noteSyn(start: number): void {
    if (!this.#isNew) return;
    this.#isNew = false;
    this.#writtenTo = 1;
    this.#readTo = start + 1;
  }
}

/** What a call returns that succeeds as a whole. */
function defaultResult({ name, argument }: Call): number | string {
  return name === 'write' || name === 'read' ? argument : 0;
}

/** Type and code in ICMP and in ICMPv6 (RFC 792, RFC 1812, RFC 4443). */
const ICMP_CODES: Readonly<
  Record<IcmpKind, readonly [readonly [number, number], readonly [number, number]]>
> = {
  net: [
    [3, 0],
    [1, 0],
  ],
  host: [
    [3, 1],
    [1, 3],
  ],
  protocol: [
    [3, 2],
    [4, 1],
  ],
  port: [
    [3, 3],
    [1, 4],
  ],
  frag_needed: [
    [3, 4],
    [2, 0],
  ],
  admin: [
    [3, 13],
    [1, 1],
  ],
  time_exceeded: [
    [11, 0],
    [3, 0],
  ],
};

/** How many bytes longer an IPv6 header is. */
const IPV6_EXTRA = 20;
/** How exact simulated time is: the timer wheel may round up to a tick. */
const TICK_MS = 1;
/** By how much a timer of the kernel may be early: a tick at 250 Hz. */
const KERNEL_TICK_MS = 5;
/** How often a call that has no result yet is tried again. */
const POLL_MS = 2;
