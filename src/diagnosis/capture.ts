/**
 * `Captures`: packets before and after their translation as a pcapng file, piece by piece, for Wireshark.
 *
 * 1. The workers keep the packets of the wanted paths in buffers of bounded size (`CaptureBuffer`).
 * 2. A reader that asks for the next piece gets what they have kept since. A reader that is slow makes them lose packets,
 *    which are counted; nothing ever waits for it.
 * 3. A capture ends by itself after its time and at its size, when its signal is aborted, and when its reader goes away.
 *    The file ends with how many packets each realm had, and how many were lost.
 * @module
 */
import type { Clock } from '../base/clock.ts';
import { ApiMisuseError, ConflictError } from '../errors.ts';
import { PcapngWriter } from '../packet/index.ts';
import type { CaptureBatch, CaptureFilter } from '../translator/index.ts';
import type { CapturePlan } from './capture-query.ts';

/** The workers, as a capture sees them. No call may follow `endCapture`. */
export interface CaptureSource {
  /** Returns what a capture has got since the last call. The first call with a number begins it. */
  takeCapture(capture: number, filter: CaptureFilter): Promise<CaptureBatch>;
  /** Ends a capture and returns what is left of it. */
  endCapture(capture: number): Promise<CaptureBatch>;
}

/** What a capture has got. */
export interface CaptureSummary {
  /** The packets in the file. Each is there twice, before and after its translation. */
  readonly packets: number;
  readonly bytes: number;
  /** The packets that were not captured, because the reader was too slow or the file was full. */
  readonly lost: number;
}

/** A capture that runs: a pcapng file, piece by piece. A reader that stops before the end must call `return`. */
export interface Capture extends AsyncIterableIterator<Uint8Array> {
  readonly summary: CaptureSummary;
  return(): Promise<IteratorResult<Uint8Array>>;
}

/** The captures of a gateway, at most two at once. */
export class Captures implements AsyncDisposable {
  readonly #source: CaptureSource;
  readonly #clock: Clock;
  readonly #running = new Set<RunningCapture>();
  #last = 0;
  #closing: Promise<void> | undefined;

  constructor(source: CaptureSource, clock: Clock) {
    this.#source = source;
    this.#clock = clock;
  }

  /**
   * Begins a capture. When it resolves, all packets from then on are captured.
   *
   * @param onChange called when the capture begins, and with what it has got when it has ended
   * @throws {ConflictError} if two captures run.
   * @throws {ApiMisuseError} after `close`.
   * @throws the reason of `signal`, if that is aborted.
   */
  async start(
    plan: CapturePlan,
    signal: AbortSignal | undefined,
    onChange: (summary: CaptureSummary | undefined) => void
  ): Promise<Capture> {
    signal?.throwIfAborted();
    if (this.#closing !== undefined) throw new ApiMisuseError('the captures are closed');
    if (this.#running.size >= MOST_AT_ONCE) {
      throw new ConflictError(
        `${MOST_AT_ONCE} captures run already: wait for the end of one, 60 s at most, or end it`
      );
    }
    const capture: RunningCapture = new RunningCapture(
      this.#source,
      ++this.#last,
      plan,
      this.#clock,
      (summary) => {
        this.#running.delete(capture);
        onChange(summary);
      }
    );
    this.#running.add(capture);
    onChange(undefined);
    await capture.begin(signal);
    return capture;
  }

  /** Ends all captures. Their readers get what is left. Safe to call twice. */
  close(): Promise<void> {
    this.#closing ??= Promise.all([...this.#running].map((capture) => capture.end())).then(
      () => {}
    );
    return this.#closing;
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

class RunningCapture implements Capture {
  readonly #source: CaptureSource;
  readonly #number: number;
  readonly #plan: CapturePlan;
  readonly #clock: Clock;
  readonly #onEnd: (summary: CaptureSummary) => void;
  readonly #writer: PcapngWriter;
  /** Keyed by realm: the number of its interface, and what it had. */
  readonly #realms = new Map<string, { readonly index: number; received: number; lost: number }>();
  /** What the reader has not got yet. */
  #pieces: Uint8Array[] = [];
  #packets = 0;
  #bytes = 0;
  #lost = 0;
  /** Resolves when the capture has ended and the file is complete; undefined while it runs. */
  #ending: Promise<void> | undefined;
  /** The call of the workers under way. */
  #taking: Promise<unknown> = Promise.resolve();
  #isComplete = false;
  /** Whether the reader has gone away, so that nothing is to be kept for it. */
  #isUnread = false;
  #wake: () => void = () => {};
  #stop: () => void = () => {};

  constructor(
    source: CaptureSource,
    number: number,
    plan: CapturePlan,
    clock: Clock,
    onEnd: (summary: CaptureSummary) => void
  ) {
    this.#source = source;
    this.#number = number;
    this.#plan = plan;
    this.#clock = clock;
    this.#onEnd = onEnd;
    const { snapLength } = plan.filter;
    this.#writer = new PcapngWriter({ snapLength, write: (bytes) => this.#write(bytes) });
  }

  get summary(): CaptureSummary {
    return { packets: this.#packets, bytes: this.#bytes, lost: this.#lost };
  }

  async begin(signal: AbortSignal | undefined): Promise<void> {
    const end = (): void => void this.end();
    const cancel = this.#clock.after(this.#plan.durationMs, end, true);
    signal?.addEventListener('abort', end, { once: true });
    this.#stop = () => {
      cancel();
      signal?.removeEventListener('abort', end);
    };
    try {
      await this.#take();
    } catch (error) {
      await this.end().catch(() => {});
      throw error;
    }
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async next(): Promise<IteratorResult<Uint8Array>> {
    while (!this.#isComplete && this.#pieces.length === 0) {
      if (this.#ending === undefined) await this.#take();
      if (this.#ending !== undefined) await this.#ending;
      else if (this.#pieces.length === 0) await this.#pause();
    }
    if (this.#pieces.length === 0) return { done: true, value: undefined };
    const value = Buffer.concat(this.#pieces);
    this.#pieces = [];
    return { done: false, value };
  }

  /** The reader goes away. */
  async return(): Promise<IteratorResult<Uint8Array>> {
    this.#isUnread = true;
    this.#pieces = [];
    await this.end();
    return { done: true, value: undefined };
  }

  /** Ends the capture. The reader still gets what is left. */
  end(): Promise<void> {
    this.#ending ??= this.#end();
    return this.#ending;
  }

  async #end(): Promise<void> {
    this.#stop();
    this.#wake();
    // A call that came behind `endCapture` would begin the capture anew.
    await this.#taking.catch(() => {});
    const left = await this.#source.endCapture(this.#number).catch(() => NOTHING);
    if (!this.#isUnread) this.#complete(left);
    this.#isComplete = true;
    this.#onEnd(this.summary);
  }

  async #take(): Promise<void> {
    const taking = this.#source.takeCapture(this.#number, this.#plan.filter);
    this.#taking = taking;
    const batch = await taking;
    if (!this.#isUnread) this.#add(batch);
  }

  /** Waits until it is worth asking again, or the capture ends. */
  #pause(): Promise<void> {
    return new Promise((resolve) => {
      const cancel = this.#clock.after(POLL_MS, resolve, true);
      this.#wake = () => {
        cancel();
        resolve();
      };
    });
  }

  /** Writes the end of the file. */
  #complete(left: CaptureBatch): void {
    this.#add(left);
    const nowMs = this.#clock.wallMs();
    for (const { index, received, lost } of this.#realms.values()) {
      this.#writer.statistics(index, nowMs, received, lost);
    }
  }

  #add({ packets, lost }: CaptureBatch): void {
    for (const [name, count] of Object.entries(lost)) {
      const realm = this.#realm(name);
      realm.received += count;
      realm.lost += count;
      this.#lost += count;
    }
    for (const { direction, realm: name, timeMs, bytes, length } of packets) {
      const realm = this.#realm(name);
      realm.received++;
      if (this.#bytes + bytes.length + ROOM > this.#plan.maxBytes) {
        realm.lost++;
        this.#lost++;
        void this.end();
        continue;
      }
      this.#packets++;
      this.#writer.packet(
        realm.index,
        timeMs,
        direction,
        bytes,
        0,
        bytes.length,
        undefined,
        length
      );
    }
  }

  #realm(name: string): { readonly index: number; received: number; lost: number } {
    let realm = this.#realms.get(name);
    if (realm === undefined) {
      realm = { index: this.#writer.interface(name), received: 0, lost: 0 };
      this.#realms.set(name, realm);
    }
    return realm;
  }

  #write(bytes: Uint8Array): void {
    this.#bytes += bytes.length;
    this.#pieces.push(bytes);
  }
}

const MOST_AT_ONCE = 2;
/** How often the workers are asked while no packets come, in ms. */
const POLL_MS = 100;
/** What a packet takes beside its bytes, and the end of the file, in bytes. */
const ROOM = 512;
const NOTHING: CaptureBatch = { packets: [], lost: {} };
