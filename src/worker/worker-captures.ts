/**
 * The captures that run in a worker, each with a buffer of its own. While there is none, the packet path is as if there
 * were no captures at all.
 * @module
 */
import { systemClock } from '../base/clock.ts';
import {
  type CaptureBatch,
  CaptureBuffer,
  type CaptureFilter,
  type PacketTranslator,
} from '../translator/index.ts';

export class WorkerCaptures {
  readonly #translator: Pick<PacketTranslator, 'capture'>;
  readonly #buffers = new Map<number, CaptureBuffer>();

  constructor(translator: Pick<PacketTranslator, 'capture'>) {
    this.#translator = translator;
  }

  /** Returns what has come since the last call. The first call with a number begins a capture. */
  take(capture: number, filter: CaptureFilter): CaptureBatch {
    const running = this.#buffers.get(capture);
    if (running !== undefined) return running.take();
    this.#buffers.set(capture, new CaptureBuffer(filter, systemClock));
    this.#apply();
    return { packets: [], lost: {} };
  }

  /** Ends a capture and returns what is left of it. */
  end(capture: number): CaptureBatch {
    const left = this.#buffers.get(capture)?.take();
    if (this.#buffers.delete(capture)) this.#apply();
    return left ?? { packets: [], lost: {} };
  }

  #apply(): void {
    this.#translator.capture([...this.#buffers.values()]);
  }
}
